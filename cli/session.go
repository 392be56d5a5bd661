package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Variables that say which account of which service a command is about. The
// Azure CLI reads the same ones.
const (
	envEndpoint = "AZURE_BATCH_ENDPOINT"
	envAccount  = "AZURE_BATCH_ACCOUNT"
	envKey      = "AZURE_BATCH_ACCESS_KEY"
)

// devEndpoint is where 'batchyard dev' listens unless told otherwise.
const devEndpoint = "http://127.0.0.1:8443"

// session is what a command that calls the service works with.
type session struct {
	*client.Client
	process Process
	output  output
}

// sessionFlags are the flags of every command that calls the service. A key is
// not among them: other users of the machine can read command lines.
type sessionFlags struct {
	endpoint, account string
}

func (f *sessionFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.endpoint, "endpoint", "", "call the service at `URL` (default: $"+envEndpoint+", else 'batchyard dev' on this machine)")
	flags.StringVar(&f.account, "account", "", "`NAME` of the account (default: $"+envAccount+"); its key is read from $"+envKey)
}

// open makes the session. Nothing is called yet.
func (f *sessionFlags) open(p Process) (*session, error) {
	c, err := f.client(p)
	if err != nil {
		return nil, usageError{err}
	}
	return &session{Client: c, process: p, output: output{form: formTable, to: p.Stdout}}, nil
}

// shownFlags are the flags of a command that prints what the service answers.
type shownFlags struct {
	sessionFlags
	output outputFlags
}

func (f *shownFlags) add(command *cobra.Command) {
	f.sessionFlags.add(command)
	f.output.add(command)
}

// open makes the session and its output. What is wrong with either is a matter of
// the command line, and has the exit code of one.
func (f *shownFlags) open(p Process) (*session, error) {
	s, err := f.sessionFlags.open(p)
	if err != nil {
		return nil, err
	}
	if s.output, err = f.output.open(p); err != nil {
		return nil, usageError{err}
	}
	return s, nil
}

// client is for the account that flags and environment name. Where they name
// none, and the service is on this machine, it is the account of 'batchyard dev',
// whose key is public.
func (f *sessionFlags) client(p Process) (*client.Client, error) {
	endpoint, account, key := p.env(envEndpoint), p.env(envAccount), p.env(envKey)
	if f.endpoint != "" {
		endpoint = f.endpoint
	}
	if f.account != "" {
		account = f.account
	}
	if account == "" && key == "" && (endpoint == "" || isHere(endpoint)) {
		endpoint, account, key = cmp.Or(endpoint, devEndpoint), devAccount, devKey()
	}
	for _, need := range []struct{ name, value string }{{envEndpoint, endpoint}, {envAccount, account}, {envKey, key}} {
		if need.value == "" {
			return nil, fmt.Errorf("%s is not set: a command needs endpoint, account and key of one service", need.name)
		}
	}
	endpoint, err := readEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	secret, err := auth.ParseKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s is no key: a key is base64, as the service gave it", envKey)
	}
	return &client.Client{Endpoint: endpoint, Account: account, Key: secret}, nil
}

// isHere tells whether an endpoint is on this machine.
func isHere(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && u.Host != "" && isLoopback(net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
}

// readEndpoint checks an endpoint. Without a scheme it is HTTPS, as the Azure
// CLI has it.
func readEndpoint(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return "", fmt.Errorf("endpoint %q is no address of a service: write https://HOST or http://HOST:PORT", text)
	}
	return u.Scheme + "://" + u.Host + strings.TrimSuffix(u.EscapedPath(), "/"), nil
}

// env is the value of a variable, "" if it is not set.
func (p Process) env(name string) string {
	for _, entry := range p.Env {
		if value, found := strings.CutPrefix(entry, name+"="); found {
			return value
		}
	}
	return ""
}

// note tells the person at the terminal something that is not the result.
func (s *session) note(format string, values ...any) {
	_, _ = fmt.Fprintf(s.process.Stderr, format+"\n", values...)
}

// errNotConfirmed ends a command whose question was not answered with yes.
var errNotConfirmed = errors.New("nothing was changed")

// confirm asks before something is destroyed. Where nobody can be asked, yes has
// to have been said on the command line.
func (s *session) confirm(question string, yes bool) error {
	if yes {
		return nil
	}
	if !isTerminal(s.process.Stdin) || !isTerminal(s.process.Stderr) {
		return usageError{fmt.Errorf("%s Say --yes: there is no terminal to ask on", question)}
	}
	_, _ = fmt.Fprintf(s.process.Stderr, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(s.process.Stdin, &answer)
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return errNotConfirmed
	}
	return nil
}

// isTerminal tells whether a person may be at the other end.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
