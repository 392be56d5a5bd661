package auth

import (
	"fmt"
	"strings"
)

// SignServiceSAS writes a grant on one container, or on one blob if the target
// names one, as a query string without the question mark.
func SignServiceSAS(s SAS, target Target, key Key) (string, error) {
	if target.Account == "" || target.Container == "" {
		return "", fmt.Errorf("sign shared access signature: account and container are needed")
	}
	if target.hasLineBreak() {
		return "", fmt.Errorf("sign shared access signature: a name with a line break cannot be granted")
	}
	params, err := s.signed()
	if err != nil {
		return "", err
	}
	params["sr"] = "c"
	if target.Blob != "" {
		params["sr"] = "b"
	}
	params["rscc"] = s.Response.CacheControl
	params["rscd"] = s.Response.ContentDisposition
	params["rsce"] = s.Response.ContentEncoding
	params["rscl"] = s.Response.ContentLanguage
	params["rsct"] = s.Response.ContentType
	if v := params["sv"]; v < sasOldest {
		return "", fmt.Errorf("sign shared access signature: version %s is older than %s", v, sasOldest)
	}
	for name, value := range params {
		if strings.ContainsAny(value, "\r\n") {
			return "", fmt.Errorf("sign shared access signature: %s has a line break", name)
		}
	}
	return encodeSAS(params, key, serviceText(target, params))
}

// serviceText is the text that a service SAS covers: the values of these
// parameters as sent, one a line, the last without a line break. Later versions
// put more lines in the middle.
//
//	from 2015-02-21   sp st se resource si          sv                  rscc rscd rsce rscl rsct
//	from 2015-04-05   sp st se resource si sip spr  sv                  rscc …
//	from 2018-11-09   sp st se resource si sip spr  sv sr snapshot      rscc …
//	from 2020-12-06   sp st se resource si sip spr  sv sr snapshot ses  rscc …
func serviceText(t Target, p map[string]string) string {
	version := p["sv"]
	lines := []string{p["sp"], p["st"], p["se"], serviceResource(t, p["sr"]), p["si"]}
	if version >= sasWithAddress {
		lines = append(lines, p["sip"], p["spr"])
	}
	lines = append(lines, version)
	if version >= sasWithResource {
		// The snapshot line is for grants on a snapshot, which are not
		// served here; a blob or container leaves it empty.
		lines = append(lines, p["sr"], "")
	}
	if version >= sasWithEncryption {
		lines = append(lines, p["ses"])
	}
	lines = append(lines, p["rscc"], p["rscd"], p["rsce"], p["rscl"], p["rsct"])
	return strings.Join(lines, "\n")
}

// serviceResource names what is granted. A grant on a container is the same
// text for each of its blobs, which is what makes it hold for all of them.
func serviceResource(t Target, kind string) string {
	name := "/blob/" + t.Account + "/" + t.Container
	if kind == "b" {
		name += "/" + t.Blob
	}
	return name
}
