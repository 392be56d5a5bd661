package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/go-autorest/autorest"
)

// sharedKey signs requests with an account's key. The client package ships no such authorizer.
type sharedKey struct {
	account string
	key     []byte
}

// WithAuthorization implements autorest.Authorizer.
func (k sharedKey) WithAuthorization() autorest.PrepareDecorator {
	return func(p autorest.Preparer) autorest.Preparer {
		return autorest.PreparerFunc(func(r *http.Request) (*http.Request, error) {
			r, err := p.Prepare(r)
			if err == nil {
				r.Header.Set("ocp-date", time.Now().UTC().Format(http.TimeFormat))
				r.Header.Set("Authorization", "SharedKey "+k.account+":"+k.sign(r))
			}
			return r, err
		})
	}
}

func (k sharedKey) sign(r *http.Request) string {
	length := ""
	if r.ContentLength > 0 {
		length = strconv.FormatInt(r.ContentLength, 10)
	}
	h := r.Header
	lines := []string{
		r.Method, h.Get("Content-Encoding"), h.Get("Content-Language"), length, h.Get("Content-MD5"),
		h.Get("Content-Type"), h.Get("Date"), h.Get("If-Modified-Since"), h.Get("If-Match"),
		h.Get("If-None-Match"), h.Get("If-Unmodified-Since"), h.Get("Range"),
	}
	lines = append(lines, sortedLines(h, func(name string) bool { return strings.HasPrefix(name, "ocp-") })...)
	lines = append(lines, "/"+k.account+r.URL.EscapedPath())
	lines = append(lines, sortedLines(r.URL.Query(), func(string) bool { return true })...)
	mac := hmac.New(sha256.New, k.key)
	mac.Write([]byte(strings.Join(lines, "\n")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// sortedLines writes name:value for each name in lower case that is wanted.
func sortedLines(values map[string][]string, wanted func(string) bool) []string {
	var lines []string
	for name, v := range values {
		if name = strings.ToLower(name); wanted(name) {
			lines = append(lines, name+":"+strings.Join(v, ","))
		}
	}
	slices.Sort(lines)
	return lines
}
