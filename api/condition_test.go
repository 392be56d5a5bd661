package api_test

import (
	"net/http"
	"testing"
	"time"
)

func TestConditions(t *testing.T) {
	t.Parallel()
	e := withTask(t)
	etag := e.must(t, 200, "GET", "/jobs/j", newest, "").header.Get("ETag")
	past := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	future := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)

	for name, tc := range map[string]struct {
		method, header, value string
		status                int
	}{
		"read if it is the one I have, which it is":     {"GET", "If-Match", etag, 200},
		"read if it is the one I have, which it is not": {"GET", "If-Match", "0x1", 412},
		"read if it is any":                             {"GET", "If-Match", "*", 200},
		"read with a quoted tag":                        {"GET", "If-Match", `"` + etag + `"`, 200},
		"read unless I have it, which I do":             {"GET", "If-None-Match", etag, 304},
		"read unless I have it, which I do not":         {"GET", "If-None-Match", "0x1", 200},
		"read if changed since long ago":                {"GET", "If-Modified-Since", past, 200},
		"read if changed since later":                   {"GET", "If-Modified-Since", future, 304},
		"read if unchanged since later":                 {"GET", "If-Unmodified-Since", future, 200},
		"read if unchanged since long ago":              {"GET", "If-Unmodified-Since", past, 412},
		"read with a date that is none":                 {"GET", "If-Modified-Since", "yesterday", 400},
		"change what I do not have":                     {"PATCH", "If-Match", "0x1", 412},
		"change unless I have it":                       {"PATCH", "If-None-Match", "*", 412},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := ""
			if tc.method == "PATCH" {
				body = `{"priority":1}`
			}
			a := e.must(t, tc.status, tc.method, "/jobs/j", newest, body, tc.header, tc.value)
			switch {
			case a.status == 304 && a.header.Get("ETag") != etag:
				t.Errorf("a 304 has the ETag %q, want %q", a.header.Get("ETag"), etag)
			case a.status == 412 && a.code(t) != "ConditionNotMet":
				t.Errorf("code %s, want ConditionNotMet", a.code(t))
			}
		})
	}

	t.Run("a change with the right tag has a new one", func(t *testing.T) {
		t.Parallel()
		task := e.must(t, 200, "GET", "/jobs/j/tasks/t", newest, "")
		body := `{"constraints":{"maxTaskRetryCount":3}}`
		changed := e.must(t, 200, "PUT", "/jobs/j/tasks/t", newest, body, "If-Match", task.header.Get("ETag"))
		if changed.header.Get("ETag") == task.header.Get("ETag") {
			t.Error("the ETag did not change")
		}
		e.must(t, 412, "PUT", "/jobs/j/tasks/t", newest, body, "If-Match", task.header.Get("ETag"))
	})
}
