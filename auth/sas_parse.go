package auth

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	maxSAS      = 16 << 10 // bytes of a query that holds a SAS
	maxSASValue = 2 << 10  // bytes of one of its values
)

// sasParams are the parameters that are read. Those of user delegation are
// known in order to refuse them by name.
var sasParams = []string{
	"sv", "sp", "st", "se", "spr", "sip", "si", "sr", "ss", "srt", "ses", "sig",
	"rscc", "rscd", "rsce", "rscl", "rsct",
	"skoid", "sktid", "skt", "ske", "sks", "skv", "sduoid", "skdutid", "saoid", "suoid", "scid", "sdd",
}

// ParseSAS reads the shared access signature in a query. Parameters that are
// not its own are skipped. What is refused is an [*Error].
func ParseSAS(rawQuery string) (SAS, error) {
	params, err := readSASParams(rawQuery)
	if err != nil {
		return SAS{}, err
	}
	if params["sig"] == "" {
		return SAS{}, refuse(CredentialMissing, "the query holds no shared access signature")
	}
	s := SAS{
		Version:       params["sv"],
		Permissions:   params["sp"],
		HTTPSOnly:     params["spr"] == "https",
		Address:       params["sip"],
		Policy:        params["si"],
		Resource:      params["sr"],
		Services:      params["ss"],
		ResourceTypes: params["srt"],
		Response: Response{
			CacheControl:       params["rscc"],
			ContentDisposition: params["rscd"],
			ContentEncoding:    params["rsce"],
			ContentLanguage:    params["rscl"],
			ContentType:        params["rsct"],
		},
		params: params,
	}
	if err := s.readSignature(); err != nil {
		return SAS{}, err
	}
	if err := s.readTimes(); err != nil {
		return SAS{}, err
	}
	if err := s.checkForm(); err != nil {
		return SAS{}, err
	}
	return s, nil
}

func readSASParams(rawQuery string) (map[string]string, error) {
	if len(rawQuery) > maxSAS {
		return nil, refuse(SASMalformed, "the query is longer than %d bytes", maxSAS)
	}
	params := map[string]string{}
	for _, p := range splitQuery(rawQuery) {
		if !slices.Contains(sasParams, p.name) {
			continue
		}
		if _, twice := params[p.name]; twice {
			return nil, refuse(SASMalformed, "the shared access signature has %s twice", p.name)
		}
		if len(p.value) > maxSASValue {
			return nil, refuse(SASMalformed, "%s in the shared access signature is longer than %d bytes", p.name, maxSASValue)
		}
		if strings.ContainsAny(p.value, "\r\n") {
			return nil, refuse(SASMalformed, "%s in the shared access signature has a line break", p.name)
		}
		params[p.name] = p.value
	}
	return params, nil
}

func (s *SAS) readSignature() error {
	// A plus that nobody escaped has become a space.
	mac, err := decodeSignature(strings.ReplaceAll(s.params["sig"], " ", "+"))
	if err != nil {
		return refuse(SASMalformed, "sig in the shared access signature must be the base64 of 32 bytes")
	}
	s.signature = mac
	return nil
}

// sasTimes are the ways to write st and se. The second also takes fractions.
var sasTimes = []string{"2006-01-02", time.RFC3339, "2006-01-02T15:04Z07:00"}

func (s *SAS) readTimes() error {
	var errStart, errExpiry error
	s.Start, errStart = parseSASTime("st", s.params["st"])
	s.Expiry, errExpiry = parseSASTime("se", s.params["se"])
	return cmp.Or(errStart, errExpiry)
}

func parseSASTime(name, value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	for _, layout := range sasTimes {
		if at, err := time.Parse(layout, value); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, refuse(SASMalformed, "%s in the shared access signature must be a time like 2030-01-31T12:00:00Z, not %q",
		name, clip(value))
}

// checkForm refuses what can be known to be wrong without a key.
func (s *SAS) checkForm() error {
	if _, err := time.Parse(time.DateOnly, s.Version); err != nil {
		return refuse(SASMalformed, "sv in the shared access signature must be a version like %s, not %q", SASVersion, clip(s.Version))
	}
	if s.Version < sasOldest || s.isAccount() && s.Version < sasWithAddress {
		return refuse(SASUnsupported, "version %s of the shared access signature is too old: %s is written today", s.Version, SASVersion)
	}
	if s.params["skoid"] != "" || s.params["sdd"] != "" {
		return refuse(SASUnsupported, "user delegation and directory signatures are not served here: sign with an account key")
	}
	if spr := s.params["spr"]; spr != "" && spr != "https" && spr != "https,http" {
		return refuse(SASMalformed, "spr in the shared access signature must be https or https,http, not %q", clip(spr))
	}
	if _, _, err := parseRange(s.Address); err != nil {
		return err
	}
	for _, c := range s.Permissions {
		if c < 'a' || c > 'z' {
			return refuse(SASMalformed, "sp in the shared access signature must be letters like rwdl, not %q", clip(s.Permissions))
		}
	}
	return s.checkKind()
}

func (s *SAS) checkKind() error {
	if s.isAccount() {
		if s.Services == "" || s.ResourceTypes == "" || s.Resource != "" {
			return refuse(SASMalformed, "an account shared access signature needs ss and srt, and no sr")
		}
	} else if s.Resource == "" {
		return refuse(SASMalformed, "the shared access signature needs sr, or ss and srt for one of the account")
	} else if s.Resource != "b" && s.Resource != "c" {
		return refuse(SASUnsupported, "sr=%s in the shared access signature is not served here: only b (blob) and c (container) are",
			clip(s.Resource))
	}
	if s.Policy == "" && (s.Permissions == "" || s.Expiry.IsZero()) {
		return refuse(SASMalformed, "the shared access signature needs sp and se")
	}
	return nil
}

// parseRange reads sip: one IPv4 address, or two joined by a hyphen.
func parseRange(s string) (from, to netip.Addr, err error) {
	if s == "" {
		return from, to, nil
	}
	first, last, two := strings.Cut(s, "-")
	if !two {
		last = first
	}
	from, err1 := netip.ParseAddr(first)
	to, err2 := netip.ParseAddr(last)
	if err1 != nil || err2 != nil || !from.Is4() || !to.Is4() || to.Less(from) {
		return from, to, refuse(SASMalformed,
			"sip in the shared access signature must be an IPv4 address or two joined by a hyphen, not %q", clip(s))
	}
	return from, to, nil
}
