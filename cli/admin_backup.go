package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/admin"
	"github.com/spf13/cobra"
)

func newBackup(p Process) *cobra.Command {
	var place placeFlags
	command := &cobra.Command{
		Use:   "backup DEST [--data DIR | --config FILE]",
		Short: "Copy the data of a server, which may be running",
		Long: `backup makes the folder DEST: the database as it is at one moment, every blob
that it names, the keys of the local authority and, with --config, the
configuration. The server goes on; blobs deleted meanwhile leave the disk later.

DEST has its name only once it is complete and on disk; a backup that is cut off
leaves DEST.partial-…, to be deleted. It holds account keys: it is for its
owner's eyes only, keep it so. 'sha256sum -c SHA256SUMS' checks it where it
lies.

The database is copied as an SQLite file, also from PostgreSQL, and can be
restored to either. Files that tasks left on compute nodes are not in a backup.`,
		Example: `  batchyard admin backup /backup/$(date +%F) --config /etc/batchyard/server.toml`,
		Args:    oneArg("DEST"),
		RunE: func(command *cobra.Command, args []string) error {
			at, err := place.place(p)
			if err != nil {
				return err
			}
			return runBackup(command.Context(), p, admin.BackupOptions{Place: at, Config: place.config, To: args[0], Program: p.Version})
		},
	}
	place.add(command)
	return command
}

func runBackup(ctx context.Context, p Process, o admin.BackupOptions) error {
	began := time.Now()
	o.Progress = func(files int, bytes int64) {
		fmt.Fprintf(p.Stderr, "copied %d files, %s\n", files, size(bytes))
	}
	o.Warn = func(what string) { fmt.Fprintf(p.Stderr, "warning: %s\n", what) }
	m, err := admin.Backup(ctx, o)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	_, err = fmt.Fprintf(p.Stdout, "%s: schema %d, %d files, %s; took %s\n",
		o.To, m.Schema, m.Files, size(m.Bytes), time.Since(began).Round(time.Millisecond))
	return err
}

func newRestore(p Process) *cobra.Command {
	var place placeFlags
	verify := false
	command := &cobra.Command{
		Use:   "restore SRC {--data DIR | --config FILE}",
		Short: "Put a backup in place, for a server to be started on it",
		Long: `restore reads all of the backup SRC and compares its sums, then copies it to the
data folder DIR, which must be empty or not there, and the database that is
named, which must be empty and have no server. DIR gets a database of its own if
none is named. A restore that is cut off may be begun again.

Stop the old server first, wherever it is. The restored service knows what was
there when the backup was made: tasks that had not ended then are queued and run
again, also if they ended since. It begins with new compute nodes, and gives
them no tasks for the first lease and a quarter of its time (nodes.lease), so
that what old nodes still run has ended before it runs again. Old nodes end
themselves: they are refused.

A configuration in the backup is put into DIR as config.toml and not used.`,
		Example: `  batchyard admin restore /backup/batchyard-2026-11-23 --data /var/lib/batchyard
  batchyard admin restore /backup/batchyard-2026-11-23 --verify`,
		Args: oneArg("SRC"),
		RunE: func(command *cobra.Command, args []string) error {
			if verify {
				m, err := admin.Verify(command.Context(), args[0])
				if err != nil {
					return fmt.Errorf("verify backup: %w", err)
				}
				return printRestored(p, "sound", m)
			}
			if place.data == "" && place.config == "" {
				return usageError{errors.New("say where to with --data DIR or --config FILE")}
			}
			at, err := place.place(p)
			if err != nil {
				return err
			}
			m, err := admin.Restore(command.Context(), admin.RestoreOptions{
				Place: at, From: args[0],
				Progress: func(step string) { fmt.Fprintf(p.Stderr, "%s\n", step) },
			})
			if err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			return printRestored(p, "restored to "+at.Data, m)
		},
	}
	place.add(command)
	command.Flags().BoolVar(&verify, "verify", false, "only read the backup and compare its sums")
	return command
}

func printRestored(p Process, what string, m admin.Manifest) error {
	_, err := fmt.Fprintf(p.Stdout, "%s: taken %s by %s, %d files, %s\n",
		what, m.Taken.Format(time.RFC3339), m.Program, m.Files, size(m.Bytes))
	return err
}

// oneArg wants one argument.
func oneArg(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("one %s is wanted, not %d", name, len(args))}
		}
		return nil
	}
}

// size is a number of bytes for people.
func size(bytes int64) string {
	const kibi = 1 << 10
	value, unit := float64(bytes), "B"
	for _, larger := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < kibi {
			break
		}
		value, unit = value/kibi, larger
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}
