package auth

import (
	"cmp"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	blobDate   = "X-Ms-Date" // the storage protocol's own date header
	blobPrefix = "x-ms-"     // headers with this prefix are signed
)

// SignBlob signs a request to a storage endpoint with Shared Key: it sets
// x-ms-date unless a date is there, and Authorization. The caller sets
// x-ms-version first; nothing that is signed may change afterwards.
//
// One rule serves both ways of addressing: the signed resource is the account
// followed by the path as sent. Where the path names the account itself, as on
// an emulator, the account therefore appears twice.
func SignBlob(r *http.Request, account string, key Key, now time.Time) error {
	return signBlob(r, SharedKey, account, key, now)
}

// SignBlobLite signs like [SignBlob] with Shared Key Lite, which covers few
// headers and no parameter of the query but comp.
func SignBlobLite(r *http.Request, account string, key Key, now time.Time) error {
	return signBlob(r, SharedKeyLite, account, key, now)
}

func signBlob(r *http.Request, scheme Scheme, account string, key Key, now time.Time) error {
	if r.Header.Get(blobDate) == "" && r.Header.Get("Date") == "" {
		r.Header.Set(blobDate, now.UTC().Format(http.TimeFormat))
	}
	names, _ := customHeaders(r.Header, blobPrefix)
	slices.SortFunc(names, compareWords)
	text := blobText(scheme, r, blobForm{
		length: sentLength(r), // zero is an empty line since version 2015-02-21
		date:   dateLines(r.Header, blobDate)[0],
		custom: customLines(r.Header, names, false),
		query:  blobQuery(scheme, r),
	}, account)
	signature, err := key.signBase64(text)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", fmt.Sprintf("%s %s:%s", scheme, account, signature))
	return nil
}

// VerifyBlob checks a request to the storage endpoint against the credential of
// its Authorization header and the keys of the account named there, and gives
// the number of the key that made the signature, 1 or 2. The request must be
// as it came in. That the account of the credential is the one whose data the
// path names is for the caller to check. What is refused is an [*Error].
func VerifyBlob(r *http.Request, c Credential, keys Keys, now time.Time) (int, error) {
	if err := checkSize(r); err != nil {
		return 0, err
	}
	if err := checkDate(r.Header, blobDate, now); err != nil {
		return 0, err
	}
	return keys.match(c.signature, blobTexts(r, c))
}

// blobForm holds the parts of a text to sign in which clients differ.
type blobForm struct {
	length string
	date   string
	custom string // the x-ms- headers, each on a line
	query  string
}

func blobText(scheme Scheme, r *http.Request, f blobForm, account string) string {
	return headerLines(scheme, r, f.length, f.date) + f.custom + "/" + account + resourcePath(r.URL) + f.query
}

// blobQuery is the query as a storage signature covers it: all of it on lines
// of its own or, in the short form, ?comp=value alone.
func blobQuery(scheme Scheme, r *http.Request) string {
	params := splitQuery(r.URL.RawQuery)
	if scheme == SharedKey {
		return queryForm{}.lines(params)
	}
	for _, p := range params {
		if strings.EqualFold(p.name, "comp") {
			return "?comp=" + p.value
		}
	}
	return ""
}

// blobTexts gives the candidates, the most usual first.
func blobTexts(r *http.Request, c Credential) iter.Seq[string] {
	custom := blobHeaders(r.Header)
	return func(yield func(string) bool) {
		f := blobForm{query: blobQuery(c.Scheme, r)}
		for _, account := range accountNames(c.Account) {
			for _, f.custom = range custom {
				for _, f.date = range dateLines(r.Header, blobDate) {
					for _, f.length = range lengthLines(c.Scheme, r) {
						if !yield(blobText(c.Scheme, r, f, account)) {
							return
						}
					}
				}
			}
		}
	}
}

// blobHeaders are the forms in which clients sign the x-ms- headers: sorted as
// the service sorts, which newer clients copy, or by bytes, which is what the
// documentation was long read to mean; without those that have no value, as it
// was before version 2016-05-31.
func blobHeaders(h http.Header) []string {
	names, empty := customHeaders(h, blobPrefix)
	slices.SortFunc(names, compareWords)
	orders := [][]string{names}
	if !slices.IsSorted(names) {
		orders = append(orders, slices.Sorted(slices.Values(names)))
	}
	var forms []string
	for _, order := range orders {
		forms = append(forms, customLines(h, order, false))
		if empty {
			forms = append(forms, customLines(h, order, true))
		}
	}
	return forms
}

// wordOrder lists the characters of a header name as the service sorts them.
// A hyphen and an apostrophe do not count at first.
const wordOrder = "!#$%&*.^_`|~+0123456789abcdefghijklmnopqrstuvwxyz"

// compareWords orders header names as the service does: by their characters
// without hyphens and, where these are equal, the hyphen that comes later first.
func compareWords(a, b string) int {
	if c := slices.Compare(wordRanks(a), wordRanks(b)); c != 0 {
		return c
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			if strings.IndexByte(wordOrder, a[i]) < 0 {
				return 1
			}
			return -1
		}
	}
	return cmp.Compare(len(a), len(b))
}

func wordRanks(s string) []int {
	ranks := make([]int, 0, len(s))
	for i := range len(s) {
		if r := strings.IndexByte(wordOrder, s[i]); r >= 0 {
			ranks = append(ranks, r)
		}
	}
	return ranks
}
