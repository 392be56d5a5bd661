package store

import (
	"strings"
	"unicode/utf8"
)

// BlobQuery says which blobs of a container to list.
type BlobQuery struct {
	Prefix    string // only names that start with it
	Delimiter string // names that have it after the prefix are merged up to its end
	From      string // only names from this one on: what BlobPage.Next gave
	Limit     int    // at most so many items, one or more
}

// BlobItem is a line of a list: a blob without its Data, or, with Folder set,
// all those whose names start with Name.
type BlobItem struct {
	Blob
	Folder bool
}

// BlobPage is a part of a list. Next is where the following one starts, and
// empty if this is the last.
type BlobPage struct {
	Items []BlobItem
	Next  string
}

// A list is read in steps, which are shorter while blobs are merged into
// folders: what is read beyond the first of a folder is of no use. It ends early
// when it has become heavy, which only many long metadata bring about.
const (
	listStep    = 500
	folderStep  = 100
	maxListSize = 8 << 20 // bytes
)

// Blobs lists committed blobs in the order of their names. A folder is passed
// over in one step however many blobs are in it.
func (tx *Tx) Blobs(container string, q BlobQuery) (BlobPage, error) {
	var page BlobPage
	from, end := max(q.From, q.Prefix), afterPrefix(q.Prefix)
	last, size := "", 0 // last is listed already
	for {
		want := min(q.Limit-len(page.Items)+2, listStep) // with last again, and the one after the page
		if q.Delimiter != "" {
			want = min(want, folderStep)
		}
		blobs, err := tx.blobsFrom(container, from, end, want)
		if err != nil {
			return BlobPage{}, err
		}
		for _, b := range blobs {
			if b.Name < from || b.Name == last {
				continue
			}
			if len(page.Items) == q.Limit || size > maxListSize {
				page.Next = b.Name
				return page, nil
			}
			folder, ok := q.folder(b.Name)
			if !ok {
				page.Items = append(page.Items, BlobItem{Blob: b})
				from, last = b.Name, b.Name
				size += b.size()
				continue
			}
			page.Items = append(page.Items, BlobItem{Blob: Blob{Name: folder}, Folder: true})
			if from = afterPrefix(folder); from == "" {
				return page, nil // nothing sorts after it
			}
		}
		if len(blobs) < want {
			return page, nil
		}
	}
}

// size is about how much memory a blob in a list takes.
func (b Blob) size() int {
	n := 1000 + len(b.Name)
	for key, value := range b.Properties.Metadata {
		n += len(key) + len(value)
	}
	return n
}

// folder is the name up to the end of the first delimiter after the prefix.
func (q BlobQuery) folder(name string) (string, bool) {
	if q.Delimiter == "" {
		return "", false
	}
	i := strings.Index(name[len(q.Prefix):], q.Delimiter)
	if i < 0 {
		return "", false
	}
	return name[:len(q.Prefix)+i+len(q.Delimiter)], true
}

// blobsFrom reads blobs from one name on and, if end is not empty, before it.
func (tx *Tx) blobsFrom(container, from, end string, limit int) ([]Blob, error) {
	before, args := "", []any{container, from, limit}
	if end != "" {
		before, args = "AND name < $4", append(args, end)
	}
	rows, err := tx.Query(`
		SELECT name, etag, size, created, modified, properties, content, blocks, NULL
		FROM storage_blob
		WHERE container = $1 AND name >= $2 `+before+`
		ORDER BY name
		LIMIT $3`, args...)
	return all("list blobs", rows, err, scanBlob)
}

// afterPrefix is the least text that sorts after all those that start with the
// prefix, in the order of bytes, and empty if there is none. It counts by
// characters, because PostgreSQL takes no half ones.
func afterPrefix(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case last == utf8.MaxRune:
			continue
		case last == 0xD7FF: // the surrogates that follow are no characters
			return prefix + "\uE000"
		default:
			return prefix + string(last+1)
		}
	}
	return ""
}
