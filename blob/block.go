package blob

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"github.com/batchyard/batchyard/store"
)

const (
	maxBlock       = 4000 << 20 // bytes of a block
	maxBlocks      = 50_000     // blocks of a blob
	maxUncommitted = 100_000    // blocks of a blob that are in no list
	maxBlockID     = 64         // bytes of a block's name, decoded
	maxBlockList   = 8 << 20    // bytes of a document with the most blocks and the longest names
)

// readBlockID checks the name of a block, which is kept as it was sent.
func readBlockID(id string) error {
	plain, err := base64.StdEncoding.DecodeString(id)
	if err != nil || len(plain) == 0 || len(plain) > maxBlockID {
		return refuse(invalidBlockID, "The specified block ID is invalid. The block ID must be Base64-encoded, "+
			"of 1 to %d bytes before that.", maxBlockID)
	}
	return nil
}

// putBlock answers Put Block.
func (s *Server) putBlock(c *call) error {
	if c.r.Header.Get("X-Ms-Copy-Source") != "" {
		return refuse(featureNotSupported, "Put Block From URL is not served here.")
	}
	id := c.query.Get("blockid")
	if id == "" {
		return refuse(missingRequiredQuery, "A query parameter that's mandatory for this request is not specified.").
			with("QueryParameterName", "blockid")
	}
	if err := readBlockID(id); err != nil {
		return err
	}
	if c.r.ContentLength == 0 {
		return invalidHeader("Content-Length", "0", "a block is at least one byte")
	}
	var container string
	look := func(tx *store.Tx) (err error) {
		container, err = findContainerForBlock(tx, c.at, id)
		return err
	}
	if err := s.db.View(c.r.Context(), look); err != nil {
		return err
	}
	u, err := s.receive(c, maxBlock, false, false)
	if err != nil {
		return err
	}
	var freed []string
	err = s.db.Update(c.r.Context(), func(tx *store.Tx) (err error) {
		if err := look(tx); err != nil {
			return err
		}
		freed, err = tx.PutBlobBlock(container, c.at.blob, store.BlobBlock{Block: id, Size: u.size, File: u.file})
		return err
	})
	if err != nil {
		s.abandon(c.r.Context(), u, err)
		return err
	}
	s.free(c.r.Context(), freed)
	u.sums.tell(c.w.Header())
	c.w.Header().Set("X-Ms-Request-Server-Encrypted", "false")
	return c.reply(http.StatusCreated)
}

// findContainerForBlock finds the container and checks that a block of that
// name can be added: all names of a blob's blocks have one length, and there
// are not too many of them. They are counted now and then only: counting each
// time would make a long upload quadratic.
func findContainerForBlock(tx *store.Tx, at place, id string) (string, error) {
	container, err := tx.BlobContainer(at.account, at.container)
	if err != nil {
		return "", notFound(err, containerNotFound)
	}
	other, err := tx.AnyBlobBlock(container.ID, at.blob)
	if errors.Is(err, store.ErrNotFound) {
		return container.ID, nil
	}
	if err != nil {
		return "", err
	}
	if len(other) != len(id) {
		return "", refuse(invalidBlobOrBlock, "The specified blob or block content is invalid: "+
			"the IDs of all blocks of a blob must have the same length.")
	}
	if rand.IntN(500) == 0 {
		n, err := tx.BlobBlockCount(container.ID, at.blob)
		if err != nil {
			return "", err
		}
		if n >= maxUncommitted {
			return "", refuse(blockCountExceedsLimit,
				"The uncommitted block count cannot exceed the maximum limit of %d blocks.", maxUncommitted)
		}
	}
	return container.ID, nil
}

// listed is a line of a block list: a block and where it is to be looked for.
type listed struct {
	from  string // Committed, Uncommitted or Latest
	block string
}

// byteOrderMark is what the .NET client writes before its documents.
var byteOrderMark = []byte{0xEF, 0xBB, 0xBF}

// maxTag bounds a tag of a document in bytes: what is between < and >. A tag may
// else have attributes by the million, each of which takes many times its text
// in memory.
const maxTag = 1 << 10

func badBlockList(why string) error {
	return refuse(invalidXMLDocument, "The specified XML is not syntactically valid, or no list of blocks: %s.", why)
}

// readBlockList reads the document that names the blocks of a blob in order.
// Nothing in it may stand deeper than the blocks.
func readBlockList(document []byte) ([]listed, error) {
	bad := badBlockList
	document = bytes.TrimPrefix(document, byteOrderMark)
	if hasLongTag(document) {
		return nil, bad("it has a tag that is too long")
	}
	var list []listed
	d := xml.NewDecoder(bytes.NewReader(document))
	depth, found := 0, false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && found && depth == 0 {
			return list, nil
		}
		if err != nil {
			return nil, bad("it does not parse")
		}
		switch t := token.(type) {
		case xml.StartElement:
			name := t.Name.Local
			if depth == 0 {
				if name != "BlockList" || found {
					return nil, bad("it must be one BlockList")
				}
				depth++
				found = true
				continue
			}
			if name != "Committed" && name != "Uncommitted" && name != "Latest" {
				return nil, bad("it holds something else than Committed, Uncommitted and Latest")
			}
			id, err := readText(d)
			if err != nil {
				return nil, err
			}
			if len(list) == maxBlocks {
				return nil, refuse(blockListTooLong, "The block list may not contain more than %d blocks.", maxBlocks)
			}
			list = append(list, listed{from: name, block: id})
		case xml.EndElement:
			depth--
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return nil, bad("it has text outside of its elements")
			}
		}
	}
}

// readText reads the text of an element that has been opened, to its end.
func readText(d *xml.Decoder) (string, error) {
	var text strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			return "", badBlockList("it does not parse")
		}
		switch t := token.(type) {
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			return text.String(), nil
		case xml.StartElement:
			return "", badBlockList("the name of a block has elements in it")
		}
	}
}

// hasLongTag tells whether a tag, a comment or the like is longer than maxTag.
func hasLongTag(document []byte) bool {
	for {
		begin := bytes.IndexByte(document, '<')
		if begin < 0 {
			return false
		}
		document = document[begin:]
		end := bytes.IndexByte(document[:min(len(document), maxTag)], '>')
		if end < 0 {
			return len(document) > maxTag
		}
		document = document[end+1:]
	}
}

// assemble finds the blocks of a list among those that were committed before
// and those that were not.
func assemble(list []listed, committed []store.BlobPart, uncommitted []store.BlobBlock) ([]store.BlobPart, error) {
	old := make(map[string]store.BlobPart, len(committed))
	for _, p := range committed {
		old[p.Block] = p
	}
	fresh := make(map[string]store.BlobPart, len(uncommitted))
	for _, b := range uncommitted {
		fresh[b.Block] = store.BlobPart{Block: b.Block, Size: b.Size, File: b.File}
	}
	parts := make([]store.BlobPart, 0, len(list))
	var start int64
	for _, l := range list {
		p, found := store.BlobPart{}, false
		if l.from != "Committed" {
			p, found = fresh[l.block]
		}
		if !found && l.from != "Uncommitted" {
			p, found = old[l.block]
		}
		if !found {
			return nil, refuse(invalidBlockList, "The specified block list is invalid: there is no block %s.", clip(l.block))
		}
		p.Start = start
		start += p.Size
		parts = append(parts, p)
	}
	return parts, nil
}

// putBlockList answers Put Block List. It moves no bytes: the blocks become
// the parts of the blob.
func (s *Server) putBlockList(c *call) error {
	properties, err := readContentHeaders(c.r.Header, false)
	if err != nil {
		return err
	}
	edit, err := newEdit(c, false)
	if err != nil {
		return err
	}
	list, sums, err := s.receiveBlockList(c)
	if err != nil {
		return err
	}
	b := store.Blob{Name: c.at.blob, ETag: newETag(), Properties: properties}
	content := newContent()
	err = s.commit(c.r.Context(), edit, func(tx *store.Tx) ([]string, error) {
		parts, err := findParts(tx, edit, list)
		if err != nil {
			return nil, err
		}
		b.Size, b.Blocks, b.Content = 0, len(parts), ""
		if len(parts) > 0 {
			last := parts[len(parts)-1]
			b.Size, b.Content = last.Start+last.Size, content
		}
		b.Created, b.Modified = tx.Now(), tx.Now()
		if edit.old.Name != "" {
			b.Created = edit.old.Created
		}
		return tx.PutBlob(edit.container, edit.old, b, parts)
	})
	if err != nil {
		return err
	}
	sums.tell(c.w.Header())
	return c.written(b, http.StatusCreated)
}

// receiveBlockList takes the document of a request, which is bounded, and
// checks it against the sums that came with it.
func (s *Server) receiveBlockList(c *call) ([]listed, *checksums, error) {
	if err := checkLength(c.r.ContentLength, maxBlockList); err != nil {
		return nil, nil, err
	}
	sums, err := readChecksums(c.r.Header, false, s.crcTable)
	if err != nil {
		return nil, nil, err
	}
	release, err := s.hold(4 * c.r.ContentLength) // the text, and what is read from it
	if err != nil {
		return nil, nil, err
	}
	defer release()
	defer c.allowRead(c.r.ContentLength)()
	body := &bodyReader{body: io.LimitReader(c.r.Body, c.r.ContentLength)}
	document, err := io.ReadAll(io.TeeReader(body, sums))
	if err != nil {
		return nil, nil, body.fault(err)
	}
	if err := sums.check(); err != nil {
		return nil, nil, err
	}
	list, err := readBlockList(document)
	return list, sums, err
}

// findParts looks the blocks of a list up.
func findParts(tx *store.Tx, edit *edit, list []listed) ([]store.BlobPart, error) {
	uncommitted, err := tx.BlobBlocks(edit.container, edit.at.blob)
	if err != nil {
		return nil, err
	}
	var committed []store.BlobPart
	if edit.old.Blocks > 0 {
		if committed, err = tx.BlobParts(edit.old.Content, 0, edit.old.Size); err != nil {
			return nil, err
		}
	}
	return assemble(list, committed, uncommitted)
}

// getBlockList answers Get Block List.
func (s *Server) getBlockList(c *call) error {
	kind := c.param("blocklisttype")
	if kind == "" {
		kind = "committed"
	}
	if kind != "committed" && kind != "uncommitted" && kind != "all" {
		return invalidQuery("blocklisttype", kind, "it must be committed, uncommitted or all")
	}
	var b store.Blob
	var parts []store.BlobPart
	var blocks []store.BlobBlock
	err := s.db.View(c.r.Context(), func(tx *store.Tx) error {
		container, err := tx.BlobContainer(c.at.account, c.at.container)
		if err != nil {
			return notFound(err, containerNotFound)
		}
		if blocks, err = tx.BlobBlocks(container.ID, c.at.blob); err != nil {
			return err
		}
		b, err = tx.Blob(container.ID, c.at.blob)
		if errors.Is(err, store.ErrNotFound) && len(blocks) > 0 {
			return nil // so far it has nothing but these
		}
		if err != nil {
			return notFound(err, blobNotFound)
		}
		if b.Blocks > 0 {
			parts, err = tx.BlobParts(b.Content, 0, b.Size)
		}
		return err
	})
	if err != nil {
		return err
	}
	if b.Name != "" {
		setVersion(c.w.Header(), b.ETag, b.Modified)
	}
	c.w.Header().Set("X-Ms-Blob-Content-Length", strconv.FormatInt(b.Size, 10))
	return c.writeXML(func(x *xmlWriter) {
		x.open("BlockList")
		if kind != "uncommitted" {
			x.open("CommittedBlocks")
			for _, p := range parts {
				x.block(p.Block, p.Size)
			}
			x.close()
		}
		if kind != "committed" {
			x.open("UncommittedBlocks")
			for _, b := range blocks {
				x.block(b.Block, b.Size)
			}
			x.close()
		}
		x.close()
	})
}

func (x *xmlWriter) block(id string, size int64) {
	x.open("Block").element("Name", id).element("Size", strconv.FormatInt(size, 10)).close()
}
