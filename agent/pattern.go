package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/batchyard/batchyard/batch"
	"github.com/bmatcuk/doublestar/v4"
)

// maxPattern bounds a pattern whose variables have been expanded, in bytes.
const maxPattern = 16 << 10

// variable is $NAME or ${NAME} in a pattern.
var variable = regexp.MustCompile(`\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})`)

// expand puts the values of variables into a pattern. A name that is not among
// them stays as it is: files may have a dollar in their names, and a message
// about what was not found then shows the name that is wrong.
func expand(pattern string, env []string) string {
	if !strings.Contains(pattern, "$") {
		return pattern
	}
	values := make(map[string]string, len(env))
	for _, setting := range env {
		name, value, _ := strings.Cut(setting, "=")
		values[name] = value
	}
	return variable.ReplaceAllStringFunc(pattern, func(found string) string {
		if value, ok := values[strings.Trim(found, "${}")]; ok {
			return value
		}
		return found
	})
}

// aim says in which folder of the node a pattern looks, and the rest of it
// there. Patterns are relative to the working directory or absolute. Either way
// they look in the task's own directory or in the shared one: the agent may
// read more than the task may, and must not do so for it.
func (t *tree) aim(place, pattern string) (folder, below string, err error) {
	if len(pattern) > maxPattern {
		return "", "", userFailure(batch.FailureUpload, "An output file pattern is too long once its variables are expanded",
			detail("Message", fmt.Sprintf("it has %d bytes, of at most %d", len(pattern), maxPattern)))
	}
	full := path.Join(place, "wd", pattern)
	if path.IsAbs(pattern) {
		full = strings.TrimPrefix(path.Clean(pattern), filepath.ToSlash(t.path)+"/")
	}
	for _, folder := range []string{place, sharedName} {
		if below, found := strings.CutPrefix(full, folder+"/"); found {
			return folder, escape(below), nil
		}
	}
	return "", "", userFailure(batch.FailureUpload,
		"An output file pattern looks neither in the task's directory nor in the shared directory of the node", detail("FilePattern", pattern))
}

// Braces and backslashes are nothing special in the protocol and stand for
// themselves; only a slash separates.
var (
	escaper   = strings.NewReplacer(`\`, `\\`, "{", `\{`, "}", `\}`)
	unescaper = strings.NewReplacer(`\\`, `\`, `\{`, "{", `\}`, "}")
)

func escape(pattern string) string { return escaper.Replace(pattern) }

func unescape(pattern string) string { return unescaper.Replace(pattern) }

func isWild(pattern string) bool { return strings.ContainsAny(pattern, "*?[") }

// match finds the files of a pattern with wildcards. Links are not followed to
// other folders, and a wildcard finds no name that begins with a dot.
func match(root *os.Root, pattern string) ([]string, error) {
	if !doublestar.ValidatePattern(pattern) {
		return nil, userFailure(batch.FailureUpload, "An output file pattern cannot be read", detail("FilePattern", unescape(pattern)))
	}
	return doublestar.Glob(shallow{root.FS()}, pattern,
		doublestar.WithFilesOnly(), doublestar.WithNoFollow(), doublestar.WithNoHidden())
}

// shallow is a folder without what is more than maxDeep folders down: whoever
// walks it calls itself for each of them.
type shallow struct{ fs.FS }

// ReadDir implements fs.ReadDirFS.
func (s shallow) ReadDir(name string) ([]fs.DirEntry, error) {
	if strings.Count(name, "/") >= maxDeep {
		return nil, fs.ErrNotExist
	}
	return fs.ReadDir(s.FS, name)
}

// Why something that a pattern names or finds is no output.
var (
	errLeadsOut  = errors.New("it is a symbolic link, or below one, that leads out of the directory in which the pattern looks")
	errLeadsAway = errors.New("it is a symbolic link to nothing")
	errFolder    = errors.New("it is a folder, and not a file")
)

// isOutput tells whether a name is a file, or a link to one in the same
// directory: tools leave links to programs of the machine behind. Otherwise the
// error says what it is; fs.ErrNotExist: nothing.
func isOutput(root *os.Root, name string) error {
	info, err := root.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return errFolder
	case err == nil && !info.Mode().IsRegular():
		return errNotRegular
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return errLeadsOut
	}
	if link, err := root.Lstat(name); err == nil && link.Mode()&fs.ModeSymlink != 0 {
		return errLeadsAway
	}
	return err
}

// blobName is the name of a file's blob. A pattern without wildcards has it
// from the path, if there is one; otherwise that is a prefix of the file's own
// name: its path below the working directory or, if the pattern looks outside
// of it, below the folder that the pattern names.
func blobName(name, pattern, prefix string) string {
	if !isWild(pattern) && prefix != "" {
		return strings.TrimPrefix(prefix, "/")
	}
	folder, _ := doublestar.SplitPattern(pattern)
	folder = unescape(folder)
	if strings.HasPrefix(folder+"/", "wd/") {
		folder = "wd"
	}
	return strings.TrimPrefix(path.Join(prefix, strings.TrimPrefix(name, folder+"/")), "/")
}
