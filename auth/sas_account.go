package auth

import (
	"fmt"
	"strings"
)

// SignAccountSAS writes a grant on a whole account, limited by services and
// resource types, as a query string without the question mark. Services is "b"
// if it is empty.
func SignAccountSAS(s SAS, account string, key Key) (string, error) {
	if account == "" || s.ResourceTypes == "" {
		return "", fmt.Errorf("sign shared access signature: account and resource types are needed")
	}
	params, err := s.signed()
	if err != nil {
		return "", err
	}
	params["ss"] = s.Services
	if s.Services == "" {
		params["ss"] = "b"
	}
	params["srt"] = s.ResourceTypes
	if v := params["sv"]; v < sasWithAddress {
		return "", fmt.Errorf("sign shared access signature: version %s is older than %s", v, sasWithAddress)
	}
	return encodeSAS(params, key, accountText(account, params))
}

// accountText is the text that an account SAS covers: the account and the
// values of these parameters as sent, one a line, each with a line break.
// The encryption scope came with version 2020-12-06.
func accountText(account string, p map[string]string) string {
	lines := []string{account, p["sp"], p["ss"], p["srt"], p["st"], p["se"], p["sip"], p["spr"], p["sv"]}
	if p["sv"] >= sasWithEncryption {
		lines = append(lines, p["ses"])
	}
	return strings.Join(lines, "\n") + "\n"
}
