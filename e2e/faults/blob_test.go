package faults_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
)

// blobRecord is a blob and what may be in it: the content of the last upload that was answered,
// or of one without an answer after it.
type blobRecord struct {
	name    string
	may     []string // sums; "" is no blob
	uploads int
}

// useBlob uploads a new blob or an old one again, or deletes one.
func (c *customer) useBlob() {
	n := c.dice.IntN(len(c.blobs) + 3)
	if n >= len(c.blobs) {
		c.blobs = append(c.blobs, &blobRecord{name: fmt.Sprintf("%s/blob-%d", c.name, len(c.blobs)), may: []string{""}})
		n = len(c.blobs) - 1
	}
	blob := c.blobs[n]
	sum := ""
	var answer certainty
	if blob.uploads > 0 && c.dice.IntN(5) == 0 {
		answer = c.ask("delete "+blob.name, []batch.Code{"BlobNotFound"}, func(ctx context.Context) error {
			err := c.storageCall(ctx, http.MethodDelete, blob.name, "", nil, nil)
			if batch.CodeOf(err) == "BlobNotFound" && slices.Contains(blob.may, "") {
				return nil
			}
			return err
		})
	} else {
		content := c.content()
		sum = sumOf(content)
		blob.uploads++
		answer = c.ask(fmt.Sprintf("upload %d bytes to %s, sum %.8s", len(content), blob.name, sum), nil, func(ctx context.Context) error {
			return c.upload(ctx, blob.name, content)
		})
	}
	switch answer {
	case sure:
		blob.may = []string{sum}
	case maybe:
		blob.may = append(blob.may, sum)
	}
}

// content makes up some bytes: mostly few, sometimes a megabyte.
func (c *customer) content() []byte {
	size := c.dice.IntN(64 << 10)
	if c.dice.IntN(8) == 0 {
		size = c.dice.IntN(2 << 20)
	}
	content := make([]byte, size)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(c.dice.Uint32())
	}
	_, _ = rand.NewChaCha8(seed).Read(content) // it never fails
	return content
}

func sumOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// upload puts a blob, a large one in two blocks.
func (c *customer) upload(ctx context.Context, name string, content []byte) error {
	if len(content) < 128<<10 {
		return c.storageCall(ctx, http.MethodPut, name, "", content, nil)
	}
	var list strings.Builder
	list.WriteString("<BlockList>")
	half := len(content) / 2
	for i, block := range [][]byte{content[:half], content[half:]} {
		id := base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%s-%d", sumOf(content)[:16], i)))
		if err := c.storageCall(ctx, http.MethodPut, name, "comp=block&blockid="+strings.ReplaceAll(id, "=", "%3D"), block, nil); err != nil {
			return err
		}
		fmt.Fprintf(&list, "<Latest>%s</Latest>", id)
	}
	list.WriteString("</BlockList>")
	return c.storageCall(ctx, http.MethodPut, name, "comp=blocklist", []byte(list.String()), nil)
}

// storageCall makes a signed request to the storage endpoint. A refusal is a *batch.Error with
// the storage's code. The answer's body goes to out unless nil.
func (s *storm) storageCall(ctx context.Context, method, name, query string, body []byte, out io.Writer) error {
	address := fmt.Sprintf("https://%s/%s/%s", s.storage, storageAccount, s.mark)
	if name != "" {
		address += "/" + name
	}
	request, err := http.NewRequestWithContext(ctx, method, address+"?"+query, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("X-Ms-Version", "2021-12-02")
	if method == http.MethodPut && query == "" {
		request.Header.Set("X-Ms-Blob-Type", "BlockBlob")
	}
	if err := auth.SignBlob(request, storageAccount, s.key, time.Now()); err != nil {
		return err
	}
	response, err := s.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	code := batch.Code(response.Header.Get("X-Ms-Error-Code"))
	switch {
	case response.StatusCode >= 500:
		return errors.New(response.Status) // it may have happened
	case response.StatusCode >= 300:
		return &batch.Error{Code: code, Message: response.Status}
	case out != nil:
		_, err = io.Copy(out, response.Body)
	default:
		_, err = io.Copy(io.Discard, response.Body)
	}
	return err
}

// checkBlobs reads all blobs and compares them with what they may hold.
func (c *customer) checkBlobs(ctx context.Context) (complaints []string) {
	for _, blob := range c.blobs {
		var content bytes.Buffer
		sum := ""
		err := c.storageCall(ctx, http.MethodGet, blob.name, "", nil, &content)
		if err == nil {
			sum = sumOf(content.Bytes())
		}
		if err != nil && batch.CodeOf(err) != "BlobNotFound" {
			complaints = append(complaints, fmt.Sprintf("blob %s cannot be read: %v", blob.name, err))
		} else if !slices.Contains(blob.may, sum) {
			complaints = append(complaints, fmt.Sprintf("blob %s has %d bytes, sum %.8q, and may have %.8q", blob.name, content.Len(), sum, blob.may))
		}
		blob.may = []string{sum}
	}
	return complaints
}
