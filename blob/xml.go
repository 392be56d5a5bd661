package blob

import (
	"bytes"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// xmlWriter writes the documents of the protocol. They are plain, and some must
// leave empty elements in and others out, which struct tags say badly.
type xmlWriter struct {
	buf   bytes.Buffer
	stack []string
}

// open starts an element; attributes are names and values by turns.
func (x *xmlWriter) open(name string, attributes ...string) *xmlWriter {
	x.buf.WriteString("<" + name)
	for i := 0; i+1 < len(attributes); i += 2 {
		x.buf.WriteString(" " + attributes[i] + `="`)
		x.text(attributes[i+1])
		x.buf.WriteByte('"')
	}
	x.buf.WriteByte('>')
	x.stack = append(x.stack, name)
	return x
}

// close ends the element opened last.
func (x *xmlWriter) close() *xmlWriter {
	last := len(x.stack) - 1
	x.buf.WriteString("</" + x.stack[last] + ">")
	x.stack = x.stack[:last]
	return x
}

// element writes an element that holds text, empty or not.
func (x *xmlWriter) element(name, text string) *xmlWriter {
	x.open(name)
	x.text(text)
	return x.close()
}

// optional writes an element unless its text is empty.
func (x *xmlWriter) optional(name, text string) *xmlWriter {
	if text != "" {
		x.element(name, text)
	}
	return x
}

// name writes the name of a blob, which may have characters that XML has not.
func (x *xmlWriter) name(name string) *xmlWriter {
	if strings.ContainsFunc(name, notInXML) {
		x.open("Name", "Encoded", "true")
		x.text(url.PathEscape(name))
		return x.close()
	}
	return x.element("Name", name)
}

func (x *xmlWriter) text(s string) { x.buf.WriteString(escapeXML(s)) }

// escapeXML writes text for a document with named entities alone, since parsers
// of clients know few others. What cannot stand in a document becomes U+FFFD.
func escapeXML(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError)) // a client may have sent anything
	if strings.ContainsFunc(s, notInXML) {
		s = strings.Map(func(r rune) rune {
			if notInXML(r) {
				return utf8.RuneError
			}
			return r
		}, s)
	}
	return xmlEntities.Replace(s)
}

var xmlEntities = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

// notInXML reports whether a character cannot stand in a document. A carriage
// return can, but a parser makes a line feed of it.
func notInXML(r rune) bool {
	return r < 0x20 && r != '\t' && r != '\n' || r == 0xFFFE || r == 0xFFFF
}

// writeXML answers with a document.
func (c *call) writeXML(write func(*xmlWriter)) error {
	var x xmlWriter
	x.buf.WriteString(`<?xml version="1.0" encoding="utf-8"?>`)
	write(&x)
	return c.sendXML(x.buf.Bytes())
}

func (c *call) sendXML(document []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/xml")
	h.Set("Content-Length", strconv.Itoa(len(document)))
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	c.allowWrite(int64(len(document)))
	_, err := c.w.Write(document)
	return err
}
