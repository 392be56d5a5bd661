package odata

import "fmt"

// Error is what is wrong with a query option, for the person who wrote it.
type Error struct {
	Position int // of the first character concerned, counted from 1; 0 if it is the whole
	Message  string
}

// Error gives the message with the position in front.
func (e *Error) Error() string {
	if e.Position == 0 {
		return e.Message
	}
	return fmt.Sprintf("at character %d: %s", e.Position, e.Message)
}

func fail(position int, format string, args ...any) *Error {
	return &Error{Position: position, Message: fmt.Sprintf(format, args...)}
}

// clip shortens what is quoted back to the sender.
func clip(s string) string {
	const most = 60
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}
