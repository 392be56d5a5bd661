package batch

import (
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// ResourceFile is something a node fetches before a command runs. Exactly one
// of HTTPURL, StorageContainerURL and AutoStorageContainerName names the
// source.
type ResourceFile struct {
	HTTPURL                  string `json:"httpUrl,omitempty"`
	StorageContainerURL      string `json:"storageContainerUrl,omitempty"`
	AutoStorageContainerName string `json:"autoStorageContainerName,omitempty"`
	// BlobPrefix limits a container to the blobs that start with it.
	BlobPrefix string `json:"blobPrefix,omitempty"`
	// FilePath is the file's path in the working directory for HTTPURL, and
	// the folder for a container.
	FilePath string `json:"filePath,omitempty"`
	// FileMode is octal; the default is 0770.
	FileMode          string `json:"fileMode,omitempty"`
	IdentityReference Opaque `json:"identityReference,omitempty"`
}

// OutputFile says which files of a task are uploaded where and when.
type OutputFile struct {
	// FilePattern is relative to the working directory; * ? [] and ** match.
	FilePattern   string            `json:"filePattern"`
	Destination   OutputDestination `json:"destination"`
	UploadOptions OutputUpload      `json:"uploadOptions"`
}

// OutputDestination is where matched files go.
type OutputDestination struct {
	Container *OutputContainer `json:"container,omitempty"`
}

// OutputContainer is a container with a SAS that allows writing.
type OutputContainer struct {
	// Path is the blob's name for a pattern without wildcards, else a prefix.
	Path              string         `json:"path,omitempty"`
	ContainerURL      string         `json:"containerUrl"`
	IdentityReference Opaque         `json:"identityReference,omitempty"`
	UploadHeaders     []UploadHeader `json:"uploadHeaders,omitzero"`
}

// UploadHeader is a header of the upload request, for instance Content-Type.
type UploadHeader struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// check refuses what cannot be sent as a header, and what would mean nothing.
func (h UploadHeader) check(at string) error {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }
	if h.Name == "" || strings.ContainsFunc(h.Name, odd) {
		return InvalidValue(at+".name", h.Name, "The name of a header has letters, digits and some marks like - and _ only")
	}
	if strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return InvalidValue(at+".value", h.Value, "The value of a header has no line ends and no other control characters")
	}
	if !h.known() {
		return NotSupported(at+".name",
			"Of the headers of an upload, those that describe the blob are supported: x-ms-blob-content-type, -encoding, -language and -disposition, x-ms-blob-cache-control and x-ms-meta-*")
	}
	return nil
}

// known tells whether a node applies the header to the blob that it makes.
func (h UploadHeader) known() bool {
	name := strings.ToLower(h.Name)
	if meta, found := strings.CutPrefix(name, "x-ms-meta-"); found {
		return meta != ""
	}
	switch strings.TrimPrefix(name, "x-ms-blob-") {
	case "content-type", "content-encoding", "content-language", "content-disposition", "cache-control":
		return true
	}
	return false
}

// OutputUpload says when files are uploaded.
type OutputUpload struct {
	UploadCondition UploadCondition `json:"uploadCondition"`
}

// UploadCondition is the outcome of a task at which output is uploaded.
type UploadCondition string

// Upload conditions, in the casing that the service shows.
const (
	UploadOnSuccess    UploadCondition = "TaskSuccess"
	UploadOnFailure    UploadCondition = "TaskFailure"
	UploadOnCompletion UploadCondition = "TaskCompletion"
)

// Applies tells whether output is uploaded for this outcome.
func (c UploadCondition) Applies(success bool) bool {
	return c == UploadOnCompletion || success == (c == UploadOnSuccess)
}

// File is one entry of a directory on a node, as the files operations list it.
type File struct {
	// Name is the path relative to the task's directory, or to the node's
	// root for files of a node; separators are slashes.
	Name        string
	IsDirectory bool
	Size        int64
	// Modified and Created are the times of the file; a filesystem without
	// creation times gives the time of the last change.
	Modified, Created Time
	// Mode is the st_mode word as the service shows it, e.g. 0o100644.
	Mode        uint32
	ContentType string
}

// Limits of files of one task; the service's own are in bytes of the body.
const (
	maxResourceFiles = 10_000
	maxOutputFiles   = 1000
	maxFilePath      = 1024
	maxFileName      = 255 // what filesystems take for one name
	maxURL           = 8 << 10
)

// Mode is FileMode as a number; 0770 when none was given.
func (f ResourceFile) Mode() uint32 {
	if mode, err := strconv.ParseUint(f.FileMode, 8, 32); err == nil && f.FileMode != "" {
		return uint32(mode) & 0o777
	}
	return 0o770
}

func checkResourceFiles(property string, files []ResourceFile) error {
	if len(files) > maxResourceFiles {
		return InvalidValue(property, len(files), "There are at most %d resource files", maxResourceFiles)
	}
	for i, f := range files {
		if err := f.check(fmt.Sprintf("%s[%d]", property, i)); err != nil {
			return err
		}
	}
	return nil
}

func (f ResourceFile) check(at string) error {
	sources := 0
	for _, s := range []string{f.HTTPURL, f.StorageContainerURL, f.AutoStorageContainerName} {
		if s != "" {
			sources++
		}
	}
	switch {
	case sources != 1:
		return InvalidValue(at, sources, "Exactly one of httpUrl, storageContainerUrl and autoStorageContainerName is given")
	case f.AutoStorageContainerName != "":
		return NotSupported(at+".autoStorageContainerName", "The account has no auto storage; use storageContainerUrl with a SAS")
	case len(f.IdentityReference) > 0:
		return NotSupported(at+".identityReference", "There are no managed identities here; use a SAS in the URL")
	case f.HTTPURL != "" && f.FilePath == "":
		return Missing(at + ".filePath")
	case f.HTTPURL != "" && f.BlobPrefix != "":
		return InvalidValue(at+".blobPrefix", f.BlobPrefix, "A prefix goes with a container, not with httpUrl")
	}
	property := at + ".httpUrl"
	if f.HTTPURL == "" {
		property = at + ".storageContainerUrl"
	}
	if err := checkURL(property, f.HTTPURL+f.StorageContainerURL); err != nil {
		return err
	}
	if f.FileMode != "" {
		if mode, err := strconv.ParseUint(f.FileMode, 8, 32); err != nil || mode > 0o777 {
			return InvalidValue(at+".fileMode", f.FileMode, "It is an octal number like 0770, at most 0777")
		}
	}
	if f.HTTPURL != "" && path.Clean(f.FilePath) == "." {
		return InvalidValue(at+".filePath", f.FilePath, "The path names a file, not the working directory")
	}
	return checkRelative(at+".filePath", f.FilePath)
}

// checkRelative refuses paths that would leave the directory they are in.
func checkRelative(property, name string) error {
	if len(name) > maxFilePath || strings.ContainsRune(name, 0) {
		return InvalidValue(property, name, "A path has at most %d bytes and no NUL", maxFilePath)
	}
	if strings.HasPrefix(name, "/") {
		return InvalidValue(property, name, "The path is relative to the working directory")
	}
	for part := range strings.SplitSeq(strings.ReplaceAll(name, `\`, "/"), "/") {
		if part == ".." {
			return InvalidValue(property, name, "The path stays below the working directory")
		}
		if len(part) > maxFileName {
			return InvalidValue(property, name, "A name in a path has at most %d bytes", maxFileName)
		}
	}
	return nil
}

func checkURL(property, raw string) error {
	if len(raw) > maxURL {
		return InvalidValue(property, raw, "A URL has at most %d bytes", maxURL)
	}
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return InvalidValue(property, raw, "It is an http or https URL")
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || port == 0) {
		return InvalidValue(property, raw, "The port of the URL is 1 to 65535")
	}
	return nil
}

func normalizeOutputFiles(property string, files []OutputFile) error {
	if len(files) > maxOutputFiles {
		return InvalidValue(property, len(files), "There are at most %d output files", maxOutputFiles)
	}
	for i := range files {
		f, at := &files[i], fmt.Sprintf("%s[%d]", property, i)
		if f.FilePattern == "" {
			return Missing(at + ".filePattern")
		}
		if len(f.FilePattern) > maxFilePath {
			return InvalidValue(at+".filePattern", f.FilePattern, "A pattern has at most %d bytes", maxFilePath)
		}
		c := f.Destination.Container
		if c == nil || c.ContainerURL == "" {
			return Missing(at + ".destination.container.containerUrl")
		}
		if len(c.IdentityReference) > 0 {
			return NotSupported(at+".destination.container.identityReference", "There are no managed identities here; use a SAS in the URL")
		}
		if err := checkURL(at+".destination.container.containerUrl", c.ContainerURL); err != nil {
			return err
		}
		for j, h := range c.UploadHeaders {
			if err := h.check(fmt.Sprintf("%s.destination.container.uploadHeaders[%d]", at, j)); err != nil {
				return err
			}
		}
		if f.UploadOptions.UploadCondition == "" {
			return Missing(at + ".uploadOptions.uploadCondition")
		}
		if err := word(at+".uploadOptions.uploadCondition", &f.UploadOptions.UploadCondition,
			UploadOnSuccess, UploadOnFailure, UploadOnCompletion); err != nil {
			return err
		}
	}
	return nil
}
