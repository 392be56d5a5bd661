package run

import (
	"path/filepath"
	"strings"
)

// Machine says what a node's tasks see instead of the machine that the node is
// on: processes, IPC objects, temporary files and a host name of the node's own.
// All paths are absolute and without symbolic links.
type Machine struct {
	// Name is the host name.
	Name string `json:"name"`
	// Root is the node's root directory, which has the same path inside and
	// outside.
	Root string `json:"root"`
	// Scratch is a folder, closed to tasks, below which the node's /tmp and
	// /var/tmp are kept, and those of tasks that have their own.
	Scratch string `json:"scratch"`
	// Hide are folders of which tasks see nothing but Root and Show.
	Hide []string `json:"hide,omitempty"`
	// Show are folders that tasks see as they are, although they are below one
	// that is hidden or replaced.
	Show []string `json:"show,omitempty"`
}

// Hidden is the hidden folder by which tasks come to Root whatever the modes of
// the folders in it are, "" if there is none: Root is deeper in it than its
// entries, and nothing that is shown has it.
func (m *Machine) Hidden() string {
	for _, folder := range m.Hide {
		shown := false
		for _, show := range m.Show {
			shown = shown || below(m.Root, show) && below(show, folder)
		}
		if !shown && below(filepath.Dir(m.Root), folder) {
			return folder
		}
	}
	return ""
}

// below tells whether a path is another or in it.
func below(path, other string) bool { return path == other || strings.HasPrefix(path, other+"/") }
