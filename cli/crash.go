package cli

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
)

const (
	// crashFile is where an agent that crashes says why.
	crashFile = "crash.txt"
	// maxCrash bounds what is read of it.
	maxCrash = 4 << 10
)

// lastWord is what the agent before this one said when it crashed, in a node's
// private folder, "" if it did not. If this one crashes it says so there too.
func lastWord(state string, log *slog.Logger) string {
	file, err := os.OpenFile(filepath.Join(state, crashFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		log.Warn("last word of an earlier agent not known", "err", err)
		return ""
	}
	defer file.Close() // the runtime has its own
	word, err := io.ReadAll(io.LimitReader(file, maxCrash))
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = debug.SetCrashOutput(file, debug.CrashOptions{})
	}
	if err != nil {
		log.Warn("last word of this agent will not be kept", "err", err)
	}
	return string(word)
}
