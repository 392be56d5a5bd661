package run

import (
	"errors"
	"strings"
)

// SplitCommandLine splits a task's command line into a program and its
// arguments by the quoting rules of a POSIX shell: blanks separate, single
// quotes keep everything, double quotes keep everything but a backslash before
// ", \, $, ` or the end of a line, and a backslash elsewhere keeps the next
// character. Nothing is expanded: variables, patterns, pipes and redirections
// are the business of a shell that the command line may name itself.
func SplitCommandLine(line string) ([]string, error) {
	if strings.IndexByte(line, 0) >= 0 {
		return nil, errors.New("command line contains a zero byte")
	}
	s := splitter{rest: line}
	if err := s.run(); err != nil {
		return nil, err
	}
	if len(s.words) == 0 {
		return nil, errors.New("command line is empty")
	}
	if s.words[0] == "" {
		return nil, errors.New("command line names an empty program")
	}
	return s.words, nil
}

// splitter holds a command line that is partly split. Word is open while
// inWord is true; an empty pair of quotes opens one too.
type splitter struct {
	rest   string
	word   strings.Builder
	inWord bool
	words  []string
}

func (s *splitter) run() error {
	for s.rest != "" {
		c := s.next()
		switch c {
		case ' ', '\t', '\n', '\r':
			s.endWord()
		case '\'':
			if err := s.single(); err != nil {
				return err
			}
		case '"':
			if err := s.double(); err != nil {
				return err
			}
		case '\\':
			s.escape()
		default:
			s.add(c)
		}
	}
	s.endWord()
	return nil
}

func (s *splitter) next() byte {
	c := s.rest[0]
	s.rest = s.rest[1:]
	return c
}

func (s *splitter) add(c byte) {
	s.inWord = true
	s.word.WriteByte(c)
}

func (s *splitter) endWord() {
	if s.inWord {
		s.words = append(s.words, s.word.String())
		s.word.Reset()
		s.inWord = false
	}
}

// escape handles a backslash outside quotes. At the end of the line it stands
// for itself, and before the end of a line it joins two lines, as in a shell.
func (s *splitter) escape() {
	switch {
	case s.rest == "":
		s.add('\\')
	case s.rest[0] == '\n':
		s.next()
	default:
		s.add(s.next())
	}
}

func (s *splitter) single() error {
	s.inWord = true
	end := strings.IndexByte(s.rest, '\'')
	if end < 0 {
		return errors.New("command line has a single quote that is not closed")
	}
	s.word.WriteString(s.rest[:end])
	s.rest = s.rest[end+1:]
	return nil
}

func (s *splitter) double() error {
	s.inWord = true
	for s.rest != "" {
		c := s.next()
		switch {
		case c == '"':
			return nil
		case c == '\\' && s.rest != "" && strings.IndexByte("\"\\$`", s.rest[0]) >= 0:
			s.word.WriteByte(s.next())
		case c == '\\' && s.rest != "" && s.rest[0] == '\n':
			s.next()
		default:
			s.word.WriteByte(c)
		}
	}
	return errors.New("command line has a double quote that is not closed")
}
