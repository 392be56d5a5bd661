package blob

import "os"

// syncNames does nothing: NTFS keeps names in its journal, and folders cannot
// be synced there.
func syncNames(*os.File) error { return nil }
