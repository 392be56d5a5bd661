package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"golang.org/x/sync/errgroup"
)

// millions measures a server whose one job has a million tasks that wait.
type millions struct {
	*bench
	*server
	line *line
}

const millionJob = "million"

// measureMillion adds the tasks, then asks for them in every way.
func (b *bench) measureMillion(ctx context.Context) (err error) {
	s, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := errors.Join(s.emptyPool(ctx, "empty"), s.AddJob(ctx, millionJob, "empty")); err != nil {
		return err
	}
	begun := time.Now()
	err = s.addTasks(ctx, load{job: millionJob, tasks: b.million, size: 100, connections: 4, line: longLine()})
	if err != nil {
		return err
	}
	m := &millions{bench: b, server: s}
	if m.line, err = s.line(ctx); err != nil {
		return err
	}
	defer m.line.close()
	if err := m.addMemory(time.Since(begun)); err != nil {
		return err
	}
	for _, part := range []part{
		{[]string{"9"}, m.measurePages}, {[]string{"10"}, m.measureCounts},
		{[]string{"11"}, m.measureNothing}, {[]string{"14"}, m.measureKills},
	} {
		if b.wants(part.rows[0]) {
			if err := part.measure(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// addMemory adds row 8.
func (m *millions) addMemory(took time.Duration) error {
	now, most, err := m.memory()
	if err == nil && m.wants("8") {
		m.add(figure{
			row: "8", what: "resident memory, a million tasks of 500 bytes wait", goal: "≤ 600 MiB / 350 MiB",
			value: fmt.Sprintf("%.0f MiB, %.0f at most", now, most), verdict: atMost(most, 600, 350),
			how: fmt.Sprintf("%d tasks, right after the last was added, 100 a call, %.0f a second over all; judged by the most there ever was",
				m.million, float64(m.million)/took.Seconds()),
		})
	}
	return err
}

// page is a way to ask for a page of a thousand tasks.
type page struct{ what, filter string }

// measurePages adds row 9. Some tasks are ended first, so that states and times
// differ.
func (m *millions) measurePages(ctx context.Context) error {
	pages, err := m.pages(ctx)
	if err != nil {
		return err
	}
	var slowest, half []float64
	var all []string
	ask := func(p page, count int) error {
		var times []time.Duration
		for range count {
			took, err := m.line.timed(ctx, http.MethodGet, tasksPath(p.filter, "id,state"), nil)
			if err != nil {
				return err
			}
			times = append(times, took)
		}
		slowest = append(slowest, milliseconds(percentile(times, 0.99)))
		half = append(half, milliseconds(percentile(times, 0.5)))
		all = append(all, fmt.Sprintf("%s %.1f/%.1f", p.what, half[len(half)-1], slowest[len(slowest)-1]))
		return nil
	}
	for _, p := range pages {
		if err := ask(p, 50*m.rounds); err != nil {
			return err
		}
	}
	var whole []time.Duration
	for range 10 * m.rounds {
		took, err := m.line.timed(ctx, http.MethodGet, tasksPath("", ""), nil)
		if err != nil {
			return err
		}
		whole = append(whole, took)
	}
	worstPage := slices.Max(slowest)
	f := figure{
		row: "9", what: "page of 1,000 of a million, `$filter`, `$select`", goal: "p99 ≤ 10 ms / 6 ms",
		value: fmt.Sprintf("p99 %.1f ms", worstPage), verdict: atMost(worstPage, 10, 6),
		how: fmt.Sprintf("the slowest of these, p50/p99 of %d calls in ms, `$select=id,state`: %s; whole tasks without a filter %.1f/%.1f",
			50*m.rounds, strings.Join(all, "; "), milliseconds(percentile(whole, 0.5)), milliseconds(percentile(whole, 0.99))),
	}
	m.add(f)
	return m.explain(f, func() error {
		return m.profiled(ctx, m.profiles, "row-9", func() error {
			return ask(pages[slices.Index(slowest, worstPage)], max(10, int(3000/half[slices.Index(slowest, worstPage)])))
		})
	})
}

// tasksPath is the list of the job's tasks, narrowed down.
func tasksPath(filter, selected string) string {
	query := url.Values{"maxresults": {"1000"}}
	if filter != "" {
		query.Set("$filter", filter)
	}
	if selected != "" {
		query.Set("$select", selected)
	}
	return "/jobs/" + millionJob + "/tasks?" + strings.ReplaceAll(query.Encode(), "+", "%20")
}

// pages ends a thousandth of the tasks, and names ways to ask: by states that
// are common and rare, ids, times that match much and little, and the two
// together.
func (m *millions) pages(ctx context.Context) ([]page, error) {
	if err := m.endSome(ctx); err != nil {
		return nil, err
	}
	created := map[int]string{} // per cent of the tasks that were added before
	for _, percent := range []int{10, 90, 99} {
		at, err := m.createdAt(ctx, m.million/100*percent)
		if err != nil {
			return nil, err
		}
		created[percent] = "datetime'" + at + "'"
	}
	last, err := m.createdAt(ctx, m.million-1)
	if err != nil {
		return nil, err
	}
	return []page{
		{"no filter", ""},
		{"state, common", "state eq 'active'"},
		{"state, rare", "state eq 'completed'"},
		{"id, prefix", fmt.Sprintf("startswith(id,'%s')", taskID(m.million / 2)[:8])},
		{"id, range", fmt.Sprintf("id ge '%s' and id lt '%s'", taskID(m.million/2), taskID(m.million/2+500))},
		{"created, last 10 %", "creationTime ge " + created[90]},
		{"created, last 1 %", "creationTime ge " + created[99]},
		{"created, first 10 %", "creationTime lt " + created[10]},
		{"created and state", "creationTime ge " + created[90] + " and state eq 'active'"},
		{"changed since", "stateTransitionTime gt datetime'" + last + "'"},
		{"state and id", fmt.Sprintf("state eq 'active' and startswith(id,'%s')", taskID(m.million / 2)[:8])},
	}, nil
}

func (m *millions) endSome(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for n := 0; n < m.million; n += 1000 {
		group.Go(func() error {
			_, err := m.Call(ctx, http.MethodPost, "/jobs/"+millionJob+"/tasks/"+taskID(n)+"/terminate", nil, nil, nil)
			return err
		})
	}
	return group.Wait()
}

// createdAt is when the n-th task was added, as the service writes it.
func (m *millions) createdAt(ctx context.Context, n int) (string, error) {
	if err := m.line.call(ctx, http.MethodGet, "/jobs/"+millionJob+"/tasks/"+taskID(n), nil); err != nil {
		return "", err
	}
	var task struct{ CreationTime string }
	err := json.Unmarshal(m.line.body, &task)
	return task.CreationTime, err
}

// measureCounts adds row 10.
func (m *millions) measureCounts(ctx context.Context) error {
	var times []time.Duration
	ask := func(count int) error {
		for range count {
			took, err := m.line.timed(ctx, http.MethodGet, "/jobs/"+millionJob+"/taskcounts", nil)
			if err != nil {
				return err
			}
			times = append(times, took)
		}
		return nil
	}
	if err := ask(1000 * m.rounds); err != nil {
		return err
	}
	var answer struct{ TaskCounts client.Counts }
	if err := json.Unmarshal(m.line.body, &answer); err != nil {
		return err
	}
	if c := answer.TaskCounts; c.Active+c.Completed != int64(m.million) {
		return fmt.Errorf("counts are not exact: %+v of %d tasks", c, m.million)
	}
	half, most := milliseconds(percentile(times, 0.5)), milliseconds(percentile(times, 0.99))
	f := figure{
		row: "10", what: "exact task counts of a million", goal: "≤ 2 ms / 0.5 ms",
		value: fmt.Sprintf("p50 %.2f ms, p99 %.2f ms", half, most), verdict: atMost(half, 2, 0.5),
		how: fmt.Sprintf("%d calls of one connection, judged by the median", len(times)),
	}
	m.add(f)
	return m.explain(f, func() error {
		return m.profiled(ctx, m.profiles, "row-10", func() error { return ask(5000) })
	})
}

// measureNothing adds row 11: filters no index knows of, which match nothing,
// while others go on reading and adding tasks.
func (m *millions) measureNothing(ctx context.Context) error {
	filters := []string{
		"startswith(displayName,'nothing')",
		"executionInfo/exitCode eq 77",
		"requiredSlots gt 5 or executionInfo/retryCount gt 3",
	}
	var slowest []float64
	var all []string
	var small []time.Duration
	ask := func() error {
		for _, filter := range filters {
			var times []float64
			for range m.rounds {
				took, err := m.line.timed(ctx, http.MethodGet, tasksPath(filter, "id,state"), nil)
				if err != nil {
					return err
				}
				if !strings.Contains(string(m.line.body), `"value":[]`) {
					return fmt.Errorf("%s matches something: %.300s", filter, m.line.body)
				}
				times = append(times, milliseconds(took))
			}
			slowest = append(slowest, median(times))
			all = append(all, fmt.Sprintf("`%s` %.0f ms", filter, median(times)))
		}
		return nil
	}
	if err := ask(); err != nil { // alone
		return err
	}
	worstAlone := slices.Max(slowest)
	how := strings.Join(all, "; ")
	small, err := m.smallCalls(ctx, "beside", ask)
	if err != nil {
		return err
	}
	beside := milliseconds(percentile(small, 0.99))
	f := figure{
		row: "11", what: "a `$filter` that matches nothing of a million", goal: "≤ 100 ms, others not blocked / 60 ms",
		value: fmt.Sprintf("%.0f ms; others p99 %.1f ms", worstAlone, beside), verdict: worst(atMost(worstAlone, 100, 60), atMost(beside, 50, 50)),
		how: fmt.Sprintf("the slowest of %s; beside it one connection reads a task and adds one, %d calls, p50 %.1f ms, at most %.0f ms; 50 ms at p99 count as not blocked",
			how, len(small), milliseconds(percentile(small, 0.5)), milliseconds(slices.Max(small))),
	}
	m.add(f)
	return m.explain(f, func() error { return m.profiled(ctx, m.profiles, "row-11", ask) })
}

// smallCalls reads and adds single tasks while run runs, and tells how long
// each call took.
func (m *millions) smallCalls(ctx context.Context, job batch.JobID, run func() error) ([]time.Duration, error) {
	if err := m.AddJob(ctx, job, "empty"); err != nil {
		return nil, err
	}
	line, err := m.server.line(ctx)
	if err != nil {
		return nil, err
	}
	defer line.close()
	done := make(chan error, 1)
	go func() { done <- run() }()
	var times []time.Duration
	l := load{job: job, size: 1, line: "/bin/true"}
	for n := 0; ; n++ {
		select {
		case err := <-done:
			return times, errors.Join(err, m.removeJob(ctx, job))
		default:
		}
		took, err := line.timed(ctx, http.MethodGet, "/jobs/"+millionJob+"/tasks/"+taskID(n*7919%m.million), nil)
		if err != nil {
			return nil, errors.Join(err, <-done)
		}
		begun := time.Now()
		if err := l.send(ctx, line, n, 1); err != nil {
			return nil, errors.Join(err, <-done)
		}
		times = append(times, took, time.Since(begun))
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return nil, errors.Join(err, <-done)
		}
	}
}

// measureKills adds row 14: the server is killed while tasks are added, and
// started again.
func (m *millions) measureKills(ctx context.Context) error {
	var times []float64
	acknowledged := 0
	for round := range m.rounds {
		took, count, err := m.killOnce(ctx, fmt.Sprintf("kill%d-", round))
		if err != nil {
			return err
		}
		times, acknowledged = append(times, took.Seconds()), acknowledged+count
	}
	took := median(times)
	m.add(figure{
		row: "14", what: "SIGKILL with a million tasks, until the API answers", goal: "≤ 5 s, nothing lost / 2 s",
		value: fmt.Sprintf("%.2f s, nothing lost", took), verdict: atMost(took, 5, 2),
		how: fmt.Sprintf("killed while four connections add tasks, started again, asked for the counts of the job; all of %d tasks acknowledged before the kills were there; %s s",
			acknowledged, spread("%.2f", times)),
	})
	return nil
}

// killOnce tells how long the API was away and how many tasks had been
// acknowledged shortly before. It fails if one of them is gone.
func (m *millions) killOnce(ctx context.Context, prefix string) (time.Duration, int, error) {
	var mu sync.Mutex
	sent := map[string]bool{} // guarded by mu: acknowledged
	adding := make(chan error, 1)
	go func() {
		adding <- m.addTasks(ctx, load{
			job: millionJob, tasks: 100_000_000, size: 100, connections: 4, line: longLine(), prefix: prefix,
			acknowledged: func(first, count int) {
				mu.Lock()
				defer mu.Unlock()
				for n := first; n < first+count; n++ {
					sent[prefix+taskID(n)] = true
				}
			},
		})
	}()
	if err := pause(ctx, time.Second); err != nil {
		return 0, 0, errors.Join(err, <-adding)
	}
	begun := time.Now()
	if err := m.kill(); err != nil {
		return 0, 0, err
	}
	if err := <-adding; err == nil {
		return 0, 0, errors.New("the server was killed and tasks were still added")
	}
	m.line.close()
	if err := m.start(ctx); err != nil {
		return 0, 0, err
	}
	var err error
	if m.line, err = m.server.line(ctx); err != nil {
		return 0, 0, err
	}
	if err := m.line.call(ctx, http.MethodGet, "/jobs/"+millionJob+"/taskcounts", nil); err != nil {
		return 0, 0, err
	}
	took, count := time.Since(begun), len(sent)
	found, err := m.Tasks(ctx, millionJob, "startswith(id,'"+prefix+"')")
	for _, t := range found {
		delete(sent, string(t.ID))
	}
	if err == nil && (len(sent) > 0 || count == 0) {
		err = fmt.Errorf("%d of %d acknowledged tasks are gone", len(sent), count)
	}
	return took, count, err
}
