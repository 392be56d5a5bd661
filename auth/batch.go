package auth

import (
	"fmt"
	"iter"
	"net/http"
	"slices"
	"time"
)

const (
	batchDate   = "Ocp-Date" // the Batch protocol's own date header
	batchPrefix = "ocp-"     // headers with this prefix are signed
)

// SignBatch signs a request to a Batch endpoint with Shared Key: it sets
// ocp-date unless a date is there, and Authorization. Nothing that is signed
// (address, length, Content-…, If-…, Range and ocp-… headers) may change afterwards.
func SignBatch(r *http.Request, account string, key Key, now time.Time) error {
	return signBatch(r, SharedKey, account, key, now)
}

// SignBatchLite signs like [SignBatch] with the shorter form, Shared Key Lite,
// which leaves most standard headers out.
func SignBatchLite(r *http.Request, account string, key Key, now time.Time) error {
	return signBatch(r, SharedKeyLite, account, key, now)
}

func signBatch(r *http.Request, scheme Scheme, account string, key Key, now time.Time) error {
	if r.Header.Get(batchDate) == "" && r.Header.Get("Date") == "" {
		r.Header.Set(batchDate, now.UTC().Format(http.TimeFormat))
	}
	names, _ := customHeaders(r.Header, batchPrefix)
	slices.Sort(names)
	text := batchText(scheme, r, batchForm{
		length:  lengthToSign(r),
		date:    dateLines(r.Header, batchDate)[0],
		custom:  customLines(r.Header, names, false),
		account: account,
		query:   queryForm{}.lines(splitQuery(r.URL.RawQuery)),
	})
	signature, err := key.signBase64(text)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", fmt.Sprintf("%s %s:%s", scheme, account, signature))
	return nil
}

// lengthToSign is the Content-Length line for a request that is about to be
// sent by net/http, which sends a zero with these methods alone.
func lengthToSign(r *http.Request) string {
	if v := sentLength(r); v != "" {
		return v
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		if r.ContentLength == 0 {
			return "0"
		}
	}
	return ""
}

// VerifyBatch checks a request to the Batch endpoint against the credential of
// its Authorization header and the keys of the account named there, and gives
// the number of the key that made the signature, 1 or 2. The request must be
// as it came in: verify before anything rewrites its address or headers.
// What is refused is an [*Error].
func VerifyBatch(r *http.Request, c Credential, keys Keys, now time.Time) (int, error) {
	if err := checkSize(r); err != nil {
		return 0, err
	}
	if err := checkDate(r.Header, batchDate, now); err != nil {
		return 0, err
	}
	return keys.match(c.signature, batchTexts(r, c))
}

// batchForm holds the parts of a text to sign in which clients differ.
type batchForm struct {
	length  string
	date    string
	custom  string // the ocp- headers, each on a line
	account string
	query   string // each parameter after a line break
}

// batchText is the text that a Batch signature covers. Shared Key Lite takes
// the first lines without the lengths, encodings, conditions and range; its
// resource is the same, so that the query is always signed.
func batchText(scheme Scheme, r *http.Request, f batchForm) string {
	return headerLines(scheme, r, f.length, f.date) + f.custom + "/" + f.account + resourcePath(r.URL) + f.query
}

// batchTexts gives the candidates, the most usual first.
func batchTexts(r *http.Request, c Credential) iter.Seq[string] {
	names, empty := customHeaders(r.Header, batchPrefix)
	slices.Sort(names)
	custom := []string{customLines(r.Header, names, false)}
	if empty {
		custom = append(custom, customLines(r.Header, names, true))
	}
	params := splitQuery(r.URL.RawQuery)
	return func(yield func(string) bool) {
		for _, form := range queryForms(params) {
			f := batchForm{query: form.lines(params)}
			for _, f.account = range accountNames(c.Account) {
				for _, f.custom = range custom {
					for _, f.date = range dateLines(r.Header, batchDate) {
						for _, f.length = range lengthLines(c.Scheme, r) {
							if !yield(batchText(c.Scheme, r, f)) {
								return
							}
						}
					}
				}
			}
		}
	}
}
