package api

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"testing"
)

// BenchmarkTaskCollection reads a hundred tasks like those that a script adds.
// It is inside the package because what it measures is a step of a request.
func BenchmarkTaskCollection(b *testing.B) {
	var body bytes.Buffer
	body.WriteString(`{"value":[`)
	for i := range maxCollection {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"id":"task-%04d","commandLine":"/bin/sh -c 'echo %d'","environmentSettings":[{"name":"N","value":"%d"}],`+
			`"resourceFiles":[{"httpUrl":"https://storage.example/c/%d?sig=abc","filePath":"in.txt"}],"constraints":{"maxTaskRetryCount":2}}`, i, i, i, i)
	}
	body.WriteString(`]}`)
	s := New(Options{}).(*server)
	for _, version := range []string{"2025-06-01", "2022-10-01.16.0", "2017-05-01.5.0"} {
		if version == "2017-05-01.5.0" {
			body = *bytes.NewBuffer(bytes.ReplaceAll(body.Bytes(), []byte("httpUrl"), []byte("blobSource")))
		}
		b.Run(version, func(b *testing.B) {
			c := s.begin(httptest.NewRecorder(), httptest.NewRequest("POST", "/jobs/j/addtaskcollection", nil))
			c.version = s.versions[version]
			b.ReportAllocs()
			b.SetBytes(int64(body.Len()))
			for b.Loop() {
				specs, refused, err := c.decodeCollection(body.Bytes())
				if err != nil || len(refused) > 0 || len(specs) != maxCollection {
					b.Fatal(len(specs), refused, err)
				}
			}
		})
	}
}
