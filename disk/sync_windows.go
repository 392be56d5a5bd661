package disk

import "os"

// SyncNames does nothing: NTFS keeps names in its journal, and folders cannot
// be synced there.
func SyncNames(*os.File) error { return nil }

// IsReadOnly tells whether nobody may write to the file system that something is
// on. It is not known here, and writing will tell.
func IsReadOnly(string) bool { return false }
