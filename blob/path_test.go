package blob

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestSplitPlace(t *testing.T) {
	t.Parallel()
	const dev = "devstoreaccount1"
	for name, tc := range map[string]struct {
		host, path string
		want       place
		code       code
	}{
		"the account alone":                    {"127.0.0.1:10000", "/devstoreaccount1", place{account: dev}, ""},
		"the account with a slash":             {"127.0.0.1:10000", "/devstoreaccount1/", place{account: dev}, ""},
		"a container":                          {"localhost", "/devstoreaccount1/in", place{}, invalidResourceName},
		"a container with a slash":             {"localhost", "/devstoreaccount1/inputs/", place{account: dev, container: "inputs"}, ""},
		"a blob":                               {"localhost", "/devstoreaccount1/inputs/a/b.txt", place{account: dev, container: "inputs", blob: "a/b.txt"}, ""},
		"slashes and dots are kept":            {"localhost", "/devstoreaccount1/inputs//a/../b/./c//", place{account: dev, container: "inputs", blob: "/a/../b/./c//"}, ""},
		"an escaped slash is one of the name":  {"localhost", "/devstoreaccount1/inputs/a%2Fb%20c", place{account: dev, container: "inputs", blob: "a/b c"}, ""},
		"a plus is a plus":                     {"localhost", "/devstoreaccount1/inputs/a+b%2B", place{account: dev, container: "inputs", blob: "a+b+"}, ""},
		"unicode and trailing dots":            {"localhost", "/devstoreaccount1/inputs/%C3%A9...", place{account: dev, container: "inputs", blob: "é..."}, ""},
		"the account in the host":              {"store1.blob.localhost:10000", "/inputs/a", place{account: "store1", container: "inputs", blob: "a", hostStyle: true}, ""},
		"a host of another kind":               {"store1.files.localhost", "/store2/inputs/a", place{account: "store2", container: "inputs", blob: "a"}, ""},
		"no account":                           {"localhost", "/", place{}, invalidURI},
		"an account that can be none":          {"localhost", "/No/inputs/a", place{}, invalidURI},
		"a blob in no container":               {"localhost", "/devstoreaccount1//a", place{}, invalidResourceName},
		"the root container":                   {"localhost", "/devstoreaccount1/$root/a", place{}, invalidResourceName},
		"a container in upper case":            {"localhost", "/devstoreaccount1/Inputs", place{}, invalidResourceName},
		"a container with two hyphens":         {"localhost", "/devstoreaccount1/in--puts", place{}, invalidResourceName},
		"a container that ends with a hyphen":  {"localhost", "/devstoreaccount1/inputs-", place{}, invalidResourceName},
		"a name that is half a character":      {"localhost", "/devstoreaccount1/inputs/%C3", place{}, invalidURI},
		"a name with a zero byte":              {"localhost", "/devstoreaccount1/inputs/a%00", place{}, invalidURI},
		"a name that is too long":              {"localhost", "/devstoreaccount1/inputs/" + strings.Repeat("a", 1025), place{}, invalidResourceName},
		"a name that is just short enough":     {"localhost", "/devstoreaccount1/inputs/" + strings.Repeat("a", 1024), place{account: dev, container: "inputs", blob: strings.Repeat("a", 1024)}, ""},
		"the address of a proxy or an options": {"localhost", "*", place{}, invalidURI},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := splitPlace(tc.host, tc.path)
			var f *fault
			if errors.As(err, &f) != (tc.code != "") || f != nil && f.code != tc.code {
				t.Fatalf("error %v, want code %q", err, tc.code)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(got, tc.want, cmp.AllowUnexported(place{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzSplitPlace(f *testing.F) {
	for _, path := range []string{"/devstoreaccount1/inputs/a//b/../c", "/devstoreaccount1", "/a%2Fb/c", "//", "*", "/devstoreaccount1/inputs/%C3%A9%"} {
		f.Add("127.0.0.1:10000", path)
		f.Add("store1.blob.localhost:10000", path)
	}
	f.Fuzz(func(t *testing.T, host, path string) {
		p, err := splitPlace(host, path)
		if err != nil {
			if !errors.As(err, new(*fault)) {
				t.Fatalf("error that is no fault: %v", err)
			}
			return
		}
		if !isAccountName(p.account) || p.container != "" && !isContainerName(p.container) {
			t.Fatalf("accepted a bad name: %+v", p)
		}
		if !utf8.ValidString(p.blob) || utf8.RuneCountInString(p.blob) > maxNameChars || p.blob != "" && p.container == "" {
			t.Fatalf("accepted a bad blob: %+v", p)
		}
		// Written again and taken apart again it is the same place.
		again := "/"
		if !p.hostStyle {
			again += p.account + "/"
		}
		again += p.container + "/" + url.PathEscape(p.blob)
		if p.container == "" {
			again = strings.TrimSuffix(again, "/")
		}
		if back, err := splitPlace(host, again); err != nil || back != p {
			t.Fatalf("%q is %+v, but %q is %+v, %v", path, p, again, back, err)
		}
	})
}
