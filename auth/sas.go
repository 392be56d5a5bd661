package auth

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// SASVersion is the version of the storage protocol that our own shared access
// signatures are written for: the layouts have not changed since.
const SASVersion = "2021-12-02"

// The first versions with each layout. Versions are dates, so text order is
// their order.
const (
	sasOldest         = "2015-02-21" // the signed resource starts with /blob
	sasWithAddress    = "2015-04-05" // address range and protocol, and account SAS
	sasWithResource   = "2018-11-09" // kind of resource and snapshot
	sasWithEncryption = "2020-12-06" // encryption scope
)

// SAS is a shared access signature: a grant written into a query string. One
// for a service names a container or a blob, one for an account names kinds of
// things. From [ParseSAS] it is a claim, until Verify says that it is true.
type SAS struct {
	Version     string    // sv; SASVersion if empty when signing
	Permissions string    // sp: one letter each, r read, w write, c create, d delete, l list, a add, …
	Start       time.Time // st; zero if it is valid at once
	Expiry      time.Time // se
	HTTPSOnly   bool      // spr=https
	Address     string    // sip: an IPv4 address, or two joined by a hyphen, both included
	Policy      string    // si: a stored access policy. Verify refuses it: none can be stored here

	// Of a service SAS:
	Resource string   // sr: "c" container or "b" blob; taken from the Target when signing
	Response Response // headers that the answer to a read has to show

	// Of an account SAS:
	Services      string // ss: "b" for Blob, and others
	ResourceTypes string // srt: "s" service, "c" container, "o" object

	params    map[string]string // what is signed, as sent and decoded
	signature []byte
}

// Response holds the headers that a service SAS puts into answers to reads.
type Response struct {
	CacheControl       string // rscc
	ContentDisposition string // rscd
	ContentEncoding    string // rsce
	ContentLanguage    string // rscl
	ContentType        string // rsct
}

// Target is what a request for storage is about. Blob is the decoded name, and
// empty for the container; Container is empty for the account.
type Target struct {
	Account   string
	Container string
	Blob      string
}

// hasLineBreak reports a name that would take up further lines of the text to
// sign. A grant on such a name could be read as one on another.
func (t Target) hasLineBreak() bool {
	return strings.ContainsAny(t.Account+t.Container+t.Blob, "\r\n")
}

// SASRequest is what Verify needs to know of the request beside the SAS.
type SASRequest struct {
	Target Target
	Remote netip.Addr // where it comes from; may be invalid if the SAS has no address
	HTTPS  bool
	Now    time.Time
}

// Level is what an operation works on, in the letters of srt.
type Level byte

// The levels of operations.
const (
	ServiceLevel   Level = 's'
	ContainerLevel Level = 'c'
	ObjectLevel    Level = 'o'
)

// HasSAS reports whether a query holds a shared access signature, so that the
// request is to be judged by it.
func HasSAS(rawQuery string) bool {
	for part := range strings.SplitSeq(rawQuery, "&") {
		if strings.HasPrefix(part, "sig=") {
			return true
		}
	}
	return false
}

func (s *SAS) isAccount() bool { return s.Services != "" || s.ResourceTypes != "" }

// Verify checks that the grant was made with one of the account's keys, holds
// for the target, and may be used now, from there and in this way. It gives the
// number of the key, 1 or 2. What the grant allows is asked with [SAS.Allow].
func (s *SAS) Verify(keys Keys, r SASRequest) (int, error) {
	if r.Target.hasLineBreak() {
		return 0, refuse(SASUnsupported, "a name with a line break cannot be reached by a shared access signature")
	}
	key, err := keys.match(s.signature, slices.Values([]string{s.textToSign(r.Target)}))
	if err != nil {
		return 0, err
	}
	if s.Policy != "" {
		return 0, refuse(SASPolicyUnsupported,
			"the shared access signature refers to the stored access policy %q, and there are none here: write sp and se into the signature",
			clip(s.Policy))
	}
	if r.Now.Before(s.Start) {
		return 0, refuse(SASNotYetValid, "the shared access signature is valid from %s, and it is %s",
			s.Start.Format(time.RFC3339), r.Now.UTC().Format(time.RFC3339))
	}
	if !r.Now.Before(s.Expiry) {
		return 0, refuse(SASExpired, "the shared access signature expired at %s, and it is %s",
			s.Expiry.Format(time.RFC3339), r.Now.UTC().Format(time.RFC3339))
	}
	if s.HTTPSOnly && !r.HTTPS {
		return 0, refuse(SASProtocol, "the shared access signature may only be used over HTTPS (spr=https)")
	}
	if !s.covers(r.Remote) {
		return 0, refuse(SASAddress, "the shared access signature may be used from %s, not from %s", s.Address, r.Remote)
	}
	return key, nil
}

func (s *SAS) textToSign(t Target) string {
	if s.isAccount() {
		return accountText(t.Account, s.params)
	}
	return serviceText(t, s.params)
}

// Allow checks that the grant includes an operation: it works at a level and
// needs one of the permissions, as in Allow(ObjectLevel, "cw") for a new blob.
// A service SAS reaches the level of the container only to list its blobs.
func (s *SAS) Allow(level Level, anyOf string) error {
	if s.isAccount() {
		if !strings.Contains(s.Services, "b") {
			return refuse(SASService, "the shared access signature (ss=%s) does not cover the Blob service", clip(s.Services))
		}
		if strings.IndexByte(s.ResourceTypes, byte(level)) < 0 {
			return refuse(SASResourceType, "the shared access signature (srt=%s) does not cover this operation, which needs %c",
				clip(s.ResourceTypes), level)
		}
	} else if level != ObjectLevel && !(level == ContainerLevel && s.Resource == "c" && anyOf == "l") {
		return refuse(SASResourceType, "the shared access signature (sr=%s) does not cover this operation", s.Resource)
	}
	if !strings.ContainsAny(s.Permissions, anyOf) {
		return refuse(SASPermission, "the shared access signature (sp=%s) lacks the permission for this operation, which needs %s",
			clip(s.Permissions), strings.Join(strings.Split(anyOf, ""), " or "))
	}
	return nil
}

func (s *SAS) covers(remote netip.Addr) bool {
	if s.Address == "" {
		return true
	}
	from, to, err := parseRange(s.Address)
	remote = remote.Unmap()
	return err == nil && remote.Is4() && from.Compare(remote) <= 0 && remote.Compare(to) <= 0
}

// signed writes the common parameters down, so that they are signed exactly as
// they are sent.
func (s *SAS) signed() (map[string]string, error) {
	if s.Policy != "" {
		return nil, fmt.Errorf("sign shared access signature: stored access policies are not supported")
	}
	if s.Permissions == "" || s.Expiry.IsZero() {
		return nil, fmt.Errorf("sign shared access signature: permissions and expiry are needed")
	}
	if _, _, err := parseRange(s.Address); err != nil {
		return nil, fmt.Errorf("sign shared access signature: %w", err)
	}
	params := map[string]string{
		"sv":  s.Version,
		"sp":  s.Permissions,
		"se":  s.Expiry.UTC().Format(time.RFC3339),
		"sip": s.Address,
	}
	if s.Version == "" {
		params["sv"] = SASVersion
	}
	if !s.Start.IsZero() {
		params["st"] = s.Start.UTC().Format(time.RFC3339)
	}
	if s.HTTPSOnly {
		params["spr"] = "https"
	}
	return params, nil
}

// encodeSAS signs the text and writes the query, without a question mark.
func encodeSAS(params map[string]string, key Key, text string) (string, error) {
	if len(key) < minKeyBytes {
		return "", fmt.Errorf("sign shared access signature: account key is shorter than %d bytes", minKeyBytes)
	}
	query := url.Values{"sig": {base64.StdEncoding.EncodeToString(key.sign(text))}}
	maps.DeleteFunc(params, func(_, value string) bool { return value == "" })
	for name, value := range params {
		query.Set(name, value)
	}
	return query.Encode(), nil
}
