package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/batchyard/batchyard/batch"
)

// hyperqueueVersion is the package that is measured.
const hyperqueueVersion = "0.27.0"

// other is another system that runs processes, on the same machine.
type other struct {
	name      string
	tasks     int
	hold, aim float64 // how many times as fast we should be; 0: no goal
	// install makes it be there; an error leaves it out, loudly.
	install func(context.Context) error
	run     func(ctx context.Context, tasks int) (otherRun, error)
}

// otherRun is what one round of another system showed.
type otherRun struct {
	spawned
	words string // what else is worth telling
}

// measurePeers runs each of the other systems in turn with ours. One that
// cannot be had is left out, and the table says so.
func (b *bench) measurePeers(ctx context.Context) (err error) {
	if !b.peers {
		return nil
	}
	s, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.pool(ctx, "bench", 1, 2); err != nil {
		return err
	}
	b.makeOthers(ctx, s)
	b.add(figure{
		row: "3", what: "Funnel, Nomad", goal: "≥ 10 / 15 × Funnel, ≥ 70 / 100 × Nomad", value: "not run",
		how: "no package of this system gives them",
	})
	return nil
}

func (b *bench) makeOthers(ctx context.Context, s *server) {
	for _, o := range []other{
		{"GNU parallel -j2", max(1, b.tasks/20), 0, 0, apt("parallel"), runParallel},
		{"Slurm, 128 slots", max(1, b.tasks*3/20), 20, 30, slurmThere, runSlurm},
		{"HyperQueue " + hyperqueueVersion, max(1, b.tasks/4), 3.5, 5, installHyperQueue, runHyperQueue},
	} {
		f := figure{row: "3", what: o.name}
		if o.hold > 0 {
			f.goal = fmt.Sprintf("≥ %g / %g × theirs", o.hold, o.aim)
		}
		if err := b.compare(ctx, s, o, &f); err != nil {
			b.say("LEFT OUT: %s: %v", o.name, err)
			f.value, f.how = "not run", firstLine(err)
		}
		b.add(f)
	}
}

// compare measures one of them and ours in turn.
func (b *bench) compare(ctx context.Context, s *server, o other, f *figure) error {
	if err := o.install(ctx); err != nil {
		return err
	}
	var theirs, ours, cpu []float64
	var words string
	for round := range b.rounds {
		run, err := o.run(ctx, o.tasks)
		if err != nil {
			return err
		}
		job := batch.JobID(fmt.Sprintf("beside-%s-%d", strings.ToLower(strings.Trim(strings.Fields(o.name)[0], ",")), round))
		mine, err := s.drain(ctx, drainRun{pool: "bench", job: job, tasks: max(1, b.tasks/2), line: "/bin/true"})
		if err != nil {
			return err
		}
		theirs, ours, cpu, words = append(theirs, run.rate), append(ours, mine.rate), append(cpu, run.cpu), run.words
	}
	ratio := median(ratios(ours, theirs))
	f.value = fmt.Sprintf("%.0f/s; ours is %.1f times as fast", median(theirs), ratio)
	if o.hold > 0 {
		f.verdict = atLeast(ratio, o.hold, o.aim)
	}
	f.cpu = fmt.Sprintf("%.0f µs", median(cpu))
	f.how = fmt.Sprintf("%d × `/bin/true`, in turn with ours (%.0f/s); %s%s", o.tasks, median(ours), spread("%.0f", theirs), words)
	return nil
}

// apt installs packages of Debian.
func apt(packages ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		return runQuietly(exec.CommandContext(ctx, "tools/apt-install", packages...))
	}
}

func runQuietly(command *exec.Cmd) error {
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(command.Path), err, strings.TrimSpace(string(output)))
	}
	return nil
}

// firstLine of an error, for a cell of the table.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.ReplaceAll(line, "|", "/")
}

func runParallel(ctx context.Context, tasks int) (otherRun, error) {
	run, err := runList(ctx, tasks, "parallel", "-j2", "/bin/true")
	return otherRun{spawned: run}, err
}

func slurmThere(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("slurmd needs root")
	}
	return apt("slurmctld", "slurmd", "slurm-client", "munge")(ctx)
}

// runSlurm starts a Slurm of its own; see bench/peer/slurm.sh.
func runSlurm(ctx context.Context, tasks int) (otherRun, error) {
	command := exec.CommandContext(ctx, "bench/peer/slurm.sh", strconv.Itoa(tasks), strconv.Itoa(max(1, tasks/15)), "128")
	words, err := figuresOf(command)
	if err != nil {
		return otherRun{}, err
	}
	if len(words) != 4 {
		return otherRun{}, fmt.Errorf("slurm.sh wrote %v", words)
	}
	return otherRun{
		spawned{rate: words[0], cpu: words[1]},
		fmt.Sprintf("; an array, processor time of the whole machine; %.0f `sbatch` a second; %.0f ms from `sbatch` to start when idle", words[2], words[3]),
	}, nil
}

// hyperqueueHome is where the package is installed.
const hyperqueueHome = ".cache/bench/hyperqueue-" + hyperqueueVersion

func installHyperQueue(ctx context.Context) error {
	if _, err := os.Stat(hyperqueueHome + "/installed"); err == nil {
		return nil
	}
	if err := apt("python3-venv")(ctx); err != nil {
		return err
	}
	for _, command := range []*exec.Cmd{
		exec.CommandContext(ctx, "/usr/bin/python3", "-m", "venv", "--clear", hyperqueueHome),
		exec.CommandContext(ctx, hyperqueueHome+"/bin/pip", "install", "--quiet", "--disable-pip-version-check", "hyperqueue=="+hyperqueueVersion),
	} {
		if err := runQuietly(command); err != nil {
			return err
		}
	}
	return os.WriteFile(hyperqueueHome+"/installed", nil, 0o600)
}

// runHyperQueue has its server and its worker in one process of their own; see
// bench/peer/run_hyperqueue.py.
func runHyperQueue(ctx context.Context, tasks int) (run otherRun, err error) {
	folder, err := os.MkdirTemp(memoryFolder, "batchyard-hyperqueue-")
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	here, err := os.Getwd()
	if err != nil {
		return run, err
	}
	command := exec.CommandContext(ctx, filepath.Join(here, hyperqueueHome, "bin/python"),
		filepath.Join(here, "bench/peer/run_hyperqueue.py"), strconv.Itoa(tasks))
	command.Dir = folder
	words, err := figuresOf(command)
	if err != nil {
		return run, err
	}
	used := command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	run = otherRun{spawned{rate: words[0], cpu: each(used, tasks)}, "; one job, not durable, server and worker in one process"}
	return run, nil
}

// figuresOf runs a program that writes figures as its last line.
func figuresOf(command *exec.Cmd) ([]float64, error) {
	var errs strings.Builder
	command.Stderr = &errs
	output, err := command.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(command.Path), err, lines[len(lines)-1])
	}
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	var figures []float64
	for _, word := range strings.Fields(lines[len(lines)-1]) {
		number, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return nil, fmt.Errorf("%s wrote %q", filepath.Base(command.Path), lines[len(lines)-1])
		}
		figures = append(figures, number)
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("%s wrote nothing", filepath.Base(command.Path))
	}
	return figures, nil
}
