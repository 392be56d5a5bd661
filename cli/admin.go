package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/site"
	"github.com/spf13/cobra"
)

func newAdmin(p Process) *cobra.Command {
	command := &cobra.Command{
		Use:   "admin",
		Short: "Back up, restore, check and mend the data of a server",
		Long: `These commands work on the data of a server, on its machine. They talk to no
server; some may be used beside one that runs. See docs/operations.md.`,
		Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newBackup(p), newRestore(p), newFsck(p))
	return command
}

// placeFlags say which server's data a command is about.
type placeFlags struct {
	data, database, config string
}

func (f *placeFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.data, "data", "", "the server's data folder `DIR` (default: that of the configuration)")
	flags.StringVar(&f.database, "database", "", "the server's database as a postgres:// `URL`, unless it is in DIR")
	flags.StringVar(&f.config, "config", "", "the server's configuration `FILE`, which says both")
}

// place is where the data are: what the flags say, else the configuration and
// the environment, else the defaults.
func (f *placeFlags) place(p Process) (site.Place, error) {
	config, err := loadConfig(f.config, p.Env)
	if err != nil {
		return site.Place{}, err
	}
	place := site.Place{Data: config.Data, Database: config.Database}
	if f.data != "" {
		place.Data = f.data
		if f.config == "" {
			place.Database = "" // of another server
		}
	}
	if f.database != "" {
		place.Database = f.database
	}
	return place, nil
}

// errFound makes fsck end with a code that says that something is wrong.
var errFound = errors.New("something is wrong with the data")

func newFsck(p Process) *cobra.Command {
	var place placeFlags
	o := admin.CheckOptions{}
	all := false
	var lost []string
	command := &cobra.Command{
		Use:   "fsck [--data DIR | --config FILE] [--repair]",
		Short: "Check that database, blobs and node folders agree, and mend them",
		Long: `fsck looks through the database, the files of blobs and the folders of compute
nodes, and prints a line for each thing that is wrong: what, where, and what
--repair would do about it. It may be used while the server runs and changes
nothing then.

--repair does it. Stop the server first; nodes may go on. It deletes no file and
no folder but moves it aside, into aside-TIME beside the others, and keeps a
copy of a database that it changes. Where a blob has lost its bytes, --repair
can only delete the blob: restore a backup instead if you have one. When most
files are missing, or most rows, they are more likely elsewhere than lost, and
--repair does nothing unless --lost says that they are. After it has queued
tasks again, the next server waits for a node's lease before it starts any, so
that none runs twice.

A killed server may leave files and folders of which no row speaks, and a server
clears them up by itself. They count as wrong only when they are older than
--grace, are shown as notes until then, and --repair moves them aside at any
age.

The exit code is 0 if all is well or was mended, 1 if something is wrong or the
check failed, and 2 for a wrong call.`,
		Example: `  batchyard admin fsck --data /var/lib/batchyard
  batchyard admin fsck --config /etc/batchyard/server.toml --deep
  batchyard admin fsck --config /etc/batchyard/server.toml --repair`,
		Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) (err error) {
			if o.Grace < 0 {
				return usageError{errors.New("--grace is not negative")}
			}
			for _, name := range lost {
				if name != string(admin.LostBlobs) && name != string(admin.LostRows) {
					return usageError{fmt.Errorf("--lost is %s or %s, not %q", admin.LostBlobs, admin.LostRows, name)}
				}
				o.Lost = append(o.Lost, admin.Part(name))
			}
			o.Note = func(what string) { fmt.Fprintln(p.Stderr, what) }
			if o.Place, err = place.place(p); err != nil {
				return err
			}
			return runFsck(command.Context(), p, o, all)
		},
	}
	place.add(command)
	flags := command.Flags()
	flags.BoolVar(&o.Repair, "repair", false, "mend what is wrong; the server must not run")
	flags.BoolVar(&o.Deep, "deep", false, "read every byte of every blob and compare it with its MD5")
	flags.DurationVar(&o.Grace, "grace", admin.DefaultGrace, "`AGE` below which left-overs are no fault")
	flags.StringSliceVar(&lost, "lost", nil, "mend although most `PART`s are missing: blobs (files that rows name) or rows (of files and folders)")
	flags.BoolVar(&all, "all", false, "print every line, and not just the first of each kind")
	return command
}

func runFsck(ctx context.Context, p Process, o admin.CheckOptions, all bool) error {
	r := &fsckReport{w: p.Stdout, repair: o.Repair, all: all, seen: map[string]int{}}
	began := time.Now()
	if err := admin.Check(ctx, o, r.line); err != nil {
		return fmt.Errorf("check of %s: %w", o.Data, err)
	}
	return r.end(time.Since(began))
}

// maxLines is how many lines fsck prints of one kind unless asked for all: the
// rest say the same of other rows.
const maxLines = 20

// fsckReport prints what was found.
type fsckReport struct {
	w           io.Writer
	repair, all bool
	seen        map[string]int // lines of each kind
	order       []string       // kinds, as they came
	wrong, left int            // what is still wrong; what a server clears up
	mended      int
}

func (r *fsckReport) line(f admin.Finding) error {
	outcome := ""
	switch {
	case f.Mended:
		outcome = "; mended: " + f.Mend
		r.mended++
	case f.LeftOver:
		outcome = "; a server clears it up, or --repair does: " + f.Mend
		r.left++
	case f.Mend != "" && !r.repair:
		outcome = "; --repair would: " + f.Mend
		r.wrong++
	case f.Mend == "":
		outcome = "; this cannot be mended"
		r.wrong++
	default:
		r.wrong++
	}
	if r.seen[f.Kind] == 0 {
		r.order = append(r.order, f.Kind)
	}
	if r.seen[f.Kind]++; r.seen[f.Kind] > maxLines && !r.all {
		return nil
	}
	word := f.Kind
	if f.LeftOver && !f.Mended {
		word = "note: " + word
	}
	_, err := fmt.Fprintf(r.w, "%s: %s: %s%s\n", word, f.Where, f.What, outcome)
	return err
}

// end prints the sum and says whether something is still wrong.
func (r *fsckReport) end(took time.Duration) error {
	for _, kind := range r.order {
		if n := r.seen[kind] - maxLines; n > 0 && !r.all {
			fmt.Fprintf(r.w, "%s: and %d more (--all shows them)\n", kind, n)
		}
	}
	if _, err := fmt.Fprintf(r.w, "%d wrong, %d mended, %d left over; took %s\n", r.wrong, r.mended, r.left, took.Round(time.Millisecond)); err != nil {
		return err
	}
	if r.wrong > 0 {
		return errFound
	}
	return nil
}
