package portal

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
)

// Options say what a Page shows.
type Options struct {
	Control *control.Service
	Log     *slog.Logger
	// Version is that of the program; Newest and Oldest are the first and the last
	// api-version that is served.
	Version, Oldest, Newest string
	// Endpoint and Storage are the addresses that clients are to use.
	Endpoint, Storage string
	// Elsewhere is the address if commands do not find it by themselves.
	Elsewhere string
	// Account is one that everybody may see; empty for none.
	Account batch.AccountName
	// Now reads the clock.
	Now func() time.Time
}

// Page serves the page.
type Page struct{ Options }

// IsFor tells whether a request comes from a browser that opens the address of
// the service, rather than from a client of the protocol.
func IsFor(r *http.Request) bool {
	return r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.Header.Get("Authorization") == "" && strings.Contains(r.Header.Get("Accept"), "text/html")
}

const (
	// newestJobs is how many jobs are shown.
	newestJobs = 20
	// patience bounds the reading of what is shown.
	patience = 5 * time.Second
)

//go:embed page.html
var source string

var page = template.Must(template.New("page").Funcs(template.FuncMap{"ago": ago, "many": many}).Parse(source))

// view is what the page is made of.
type view struct {
	Options
	Pools []poolView
	Jobs  []jobView
	// More tells that there are jobs that are not shown.
	More bool
	// Trouble says why pools and jobs are not shown although they should be.
	Trouble string
	At      time.Time
}

type poolView struct {
	batch.Pool
	// States counts its nodes by state, those that are there.
	States []stateCount
}

type stateCount struct {
	State batch.NodeState
	Count int
}

// Nodes is how many nodes the pool has, Target how many it is to have.
func (p poolView) Nodes() int  { return p.CurrentDedicatedNodes + p.CurrentLowPriorityNodes }
func (p poolView) Target() int { return p.TargetDedicatedNodes + p.TargetLowPriorityNodes }

type jobView struct{ batch.Job }

// Done is the share of the job's tasks that have ended, in percent.
func (j jobView) Done() int64 {
	c := j.Counts
	all := c.Active + c.Running + c.Succeeded + c.Failed
	if all == 0 {
		return 0
	}
	return (c.Succeeded + c.Failed) * 100 / all
}

// ServeHTTP answers with the page.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := view{Options: p.Options, At: p.Now()}
	if p.Account != "" {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		if err := v.read(ctx); err != nil {
			p.Log.Error("page not complete", "err", err)
			v.Trouble = "The database does not answer now; the log of the server says why."
		}
	}
	var body bytes.Buffer
	if err := page.Execute(&body, v); err != nil {
		p.Log.Error("page not made", "err", err)
		http.Error(w, "the page cannot be made; the log of the server says why", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	// Nothing may run or be fetched, and no other page may show this one as its own.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(body.Bytes())
}

// read reads pools and jobs.
func (v *view) read(ctx context.Context) error {
	pools, err := v.Control.Pools(ctx, v.Account, control.Query{})
	if err != nil {
		return fmt.Errorf("read pools: %w", err)
	}
	for _, p := range pools.Items {
		states, err := v.states(ctx, p.ID)
		if err != nil {
			return fmt.Errorf("count nodes of pool %s: %w", p.ID, err)
		}
		v.Pools = append(v.Pools, poolView{p, states})
	}
	jobs, err := v.Control.Jobs(ctx, v.Account, control.Query{})
	if err != nil {
		return fmt.Errorf("read jobs: %w", err)
	}
	slices.SortStableFunc(jobs.Items, func(a, b batch.Job) int { return b.CreationTime.Compare(a.CreationTime) })
	for _, j := range jobs.Items[:min(len(jobs.Items), newestJobs)] {
		v.Jobs = append(v.Jobs, jobView{j})
	}
	v.More = len(jobs.Items) > newestJobs || jobs.Next != ""
	return nil
}

// states counts the nodes of a pool by state, the most frequent first.
func (v *view) states(ctx context.Context, pool batch.PoolID) ([]stateCount, error) {
	counts := make(map[batch.NodeState]int)
	nodes, err := v.Control.Nodes(ctx, v.Account, pool, control.Query{})
	if err != nil {
		return nil, err
	}
	for _, n := range nodes.Items {
		counts[n.State]++
	}
	var states []stateCount
	for state, count := range counts {
		states = append(states, stateCount{state, count})
	}
	slices.SortFunc(states, func(a, b stateCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.State, b.State))
	})
	return states, nil
}

// ago is how long something is past, in the largest unit that fits.
func ago(now, then time.Time) string {
	switch d := max(0, now.Sub(then)); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days", int(d.Hours())/24)
	}
}

// many is a count with its noun.
func many(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
