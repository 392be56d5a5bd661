package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/batchyard/batchyard/batch"
	"github.com/bmatcuk/doublestar/v4"
)

// maxPattern bounds a pattern whose variables have been expanded, in bytes.
const maxPattern = 16 << 10

// variable is $NAME or ${NAME} in a pattern.
var variable = regexp.MustCompile(`\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})`)

// expand puts the values of variables into a pattern. A name that is not among
// them stays as it is: files may have a dollar in their names, and a message
// about what was not found then shows the name that is wrong. How long the
// pattern would get is known before it is made: a short one may name a long
// value hundreds of times.
func expand(pattern string, env []string) (string, error) {
	if !strings.Contains(pattern, "$") {
		return pattern, nil
	}
	values := make(map[string]string, len(env))
	for _, setting := range env {
		name, value, _ := strings.Cut(setting, "=")
		values[name] = value
	}
	meant := func(found string) string {
		if value, ok := values[strings.Trim(found, "${}")]; ok {
			return value
		}
		return found
	}
	long := len(pattern)
	for _, found := range variable.FindAllString(pattern, -1) {
		long += len(meant(found)) - len(found)
	}
	if long > maxPattern {
		return "", userFailure(batch.FailureUpload, "An output file pattern is too long once its variables are expanded",
			detail("Message", fmt.Sprintf("it has %d bytes, of at most %d", long, maxPattern)))
	}
	return variable.ReplaceAllStringFunc(pattern, meant), nil
}

// aim says in which folder of the node a pattern looks, and the rest of it
// there. Patterns are relative to the working directory or absolute. Either way
// they look in the task's own directory or in the shared one: the agent may
// read more than the task may, and must not do so for it.
func (t *tree) aim(place, pattern string) (folder, below string, err error) {
	full := path.Join(place, "wd", pattern)
	if path.IsAbs(pattern) {
		full = strings.TrimPrefix(path.Clean(pattern), filepath.ToSlash(t.path)+"/")
	}
	for _, folder := range []string{place, sharedName} {
		if below, found := strings.CutPrefix(full, folder+"/"); found {
			return folder, below, nil
		}
	}
	return "", "", userFailure(batch.FailureUpload,
		"An output file pattern looks neither in the task's directory nor in the shared directory of the node", detail("FilePattern", pattern))
}

// escaper makes braces and backslashes, which are nothing special in the
// protocol, stand for themselves.
var escaper = strings.NewReplacer(`\`, `\\`, "{", `\{`, "}", `\}`)

func isWild(pattern string) bool { return strings.ContainsAny(pattern, "*?[") }

// fixed splits a pattern after the folders that have no wildcards; "." stands
// for none.
func fixed(pattern string) (folder string, rest []string) {
	parts := strings.Split(pattern, "/")
	n := 0
	for n < len(parts)-1 && !isWild(parts[n]) {
		n++
	}
	return path.Join(".", path.Join(parts[:n]...)), parts[n:]
}

// glob finds the files of a pattern with wildcards in one walk, whatever the
// pattern: each folder is entered once, and only if something in it may match.
type glob struct {
	files fs.FS
	// segments are the parts of the pattern, made ready for the matcher.
	segments []string
	found    []string
	// shut are folders deeper than maxDeep that were not looked into.
	shut []string
}

// anyFolders is the segment that stands for any number of folders; at the end of
// a pattern, for all that is below.
const anyFolders = "**"

// match finds the files of a pattern with wildcards, sorted. Links are not
// followed to other folders, and a wildcard finds no name that begins with a
// dot. Folders that are too deep are named apart.
func match(root fs.FS, pattern string) (files, shut []string, err error) {
	folder, segments := fixed(pattern)
	g := &glob{files: root}
	for _, segment := range segments {
		segment = escaper.Replace(segment)
		if !doublestar.ValidatePattern(segment) {
			return nil, nil, userFailure(batch.FailureUpload, "An output file pattern cannot be read", detail("FilePattern", pattern))
		}
		if n := len(g.segments); segment == anyFolders && n > 0 && g.segments[n-1] == anyFolders {
			continue
		}
		g.segments = append(g.segments, segment)
	}
	err = g.walk(folder, g.begin([]int{0}), 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return g.found, g.shut, err
}

// begin adds to places in the pattern those that are reached without a name:
// behind any number of folders stands none of them too.
func (g *glob) begin(places []int) []int {
	for i := 0; i < len(places); i++ {
		if at := places[i]; at < len(g.segments)-1 && g.segments[at] == anyFolders && !slices.Contains(places, at+1) {
			places = append(places, at+1)
		}
	}
	return places
}

// step gives the places that a name leads to from others.
func (g *glob) step(places []int, name string) []int {
	var next []int
	for _, at := range places {
		if at == len(g.segments) {
			continue
		}
		segment := g.segments[at]
		hidden := strings.HasPrefix(name, ".") && !strings.HasPrefix(segment, ".")
		switch {
		case hidden:
		case segment == anyFolders:
			if next = append(next, at); at == len(g.segments)-1 {
				next = append(next, at+1)
			}
		case doublestar.MatchUnvalidated(segment, name):
			next = append(next, at+1)
		}
	}
	slices.Sort(next)
	return g.begin(slices.Compact(next))
}

// walk looks through a folder. Folders in it that cannot be read, or go while it
// looks, have nothing.
func (g *glob) walk(folder string, places []int, depth int) error {
	entries, err := fs.ReadDir(g.files, folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := path.Join(folder, entry.Name())
		next := g.step(places, entry.Name())
		switch {
		case !entry.IsDir():
			if slices.Contains(next, len(g.segments)) {
				g.found = append(g.found, name)
			}
		case len(next) == 0 || len(next) == 1 && next[0] == len(g.segments):
		case depth == maxDeep:
			g.shut = append(g.shut, name)
		default:
			_ = g.walk(name, next, depth+1)
		}
	}
	return nil
}

// Why something that a pattern names or finds is no output.
var (
	errLeadsOut  = errors.New("it is a symbolic link, or below one, that leads out of the directory in which the pattern looks")
	errLeadsAway = errors.New("it is a symbolic link to nothing")
	errFolder    = errors.New("it is a folder, and not a file")
)

// isOutput tells whether a name is a file, or a link to one in the same
// directory: tools leave links to programs of the machine behind. Otherwise the
// error says what it is; fs.ErrNotExist: nothing.
func isOutput(root *os.Root, name string) error {
	info, err := root.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return errFolder
	case err == nil && !info.Mode().IsRegular():
		return errNotRegular
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return fs.ErrNotExist // a file stands where a folder would have to be
	case !errors.Is(err, fs.ErrNotExist):
		if _, refused := errors.AsType[syscall.Errno](err); refused {
			return err // by the kernel, for want of rights above all
		}
		return errLeadsOut
	}
	if link, err := root.Lstat(name); err == nil && link.Mode()&fs.ModeSymlink != 0 {
		return errLeadsAway
	}
	return err
}

// blobName is the name of a file's blob. A pattern without wildcards has it
// from the path, if there is one; otherwise that is a prefix of the file's own
// name: its path below the working directory or, if the pattern looks outside
// of it, below the folder that the pattern names.
func blobName(name, pattern, prefix string) string {
	if !isWild(pattern) && prefix != "" {
		return strings.TrimPrefix(prefix, "/")
	}
	folder, _ := fixed(pattern)
	if strings.HasPrefix(folder+"/", "wd/") {
		folder = "wd"
	}
	return strings.TrimPrefix(path.Join(prefix, strings.TrimPrefix(name, folder+"/")), "/")
}
