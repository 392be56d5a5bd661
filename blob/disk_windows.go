package blob

import "os"

// lockKept cannot be done: a backup beside a running server may miss a blob that
// is deleted meanwhile, and says so.
func lockKept(*os.File) error { return nil }

func isKept(*os.File) bool { return false }
