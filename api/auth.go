package api

import (
	"errors"
	"strings"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
)

// authenticate finds the account that the request is signed for. Everything
// that follows is within that account: handlers never take the name of an account
// from an address or a body.
func (c *call) authenticate() error {
	credential, err := auth.ParseHeader(c.r.Header.Get("Authorization"))
	if err != nil {
		return c.refuse(err)
	}
	name := batch.AccountName(strings.ToLower(credential.Account))
	account, err := c.Control.Account(name)
	if batch.CodeOf(err) == batch.CodeAccountNotFound {
		return c.refuse(auth.UnknownAccount(credential.Account))
	}
	if err != nil {
		return err
	}
	keys := auth.Keys{account.Keys[0], account.Keys[1]}
	if _, err := auth.VerifyBatch(c.r, credential, keys, c.Now()); err != nil {
		return c.refuse(err)
	}
	c.account = account.Name
	return nil
}

// refuse puts a refusal into the protocol's words. What cannot be understood is
// answered with 401 and a challenge, what is understood and wrong with 403: only
// the first makes clients look at how they sign. The text that should have been
// signed is told along, as the service does; it has nothing in it that the caller
// did not send.
func (c *call) refuse(err error) error {
	refusal, ok := errors.AsType[*auth.Error](err)
	if !ok {
		return err
	}
	switch refusal.Reason {
	case auth.CredentialMissing, auth.SchemeUnknown, auth.HeaderMalformed, auth.TokenInvalid:
		c.w.Header().Set("WWW-Authenticate", "SharedKey")
		return &batch.Error{
			Code:    batch.CodeAuthenticationHeaderInvalid,
			Message: "Authentication information is not given in the correct format. Check the value of the Authorization header.",
			Details: []batch.Detail{{Key: "AuthenticationErrorDetail", Value: refusal.Message}},
		}
	case auth.RequestTooLong:
		return batch.Errorf(batch.CodeInvalidURI, "The address and headers of the request are too long.")
	}
	details := []batch.Detail{{Key: "AuthenticationErrorDetail", Value: refusal.Message}}
	if refusal.StringToSign != "" {
		details = append(details, batch.Detail{Key: "StringToSign", Value: refusal.StringToSign})
	}
	return &batch.Error{
		Code: batch.CodeAuthenticationFailed,
		Message: "Server failed to authenticate the request. " +
			"Make sure the value of Authorization header is formed correctly including the signature.",
		Details: details,
	}
}
