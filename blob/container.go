package blob

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/batchyard/batchyard/store"
)

// newETag makes an ETag. It is random, so that no two versions share one, not
// even those of a blob that was deleted and made again within a microsecond.
func newETag() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return fmt.Sprintf("0x%016X", binary.BigEndian.Uint64(b[:]))
}

// newContent makes a name for a container's life or a list of parts.
func newContent() string { return strings.ToLower(rand.Text()) }

// getAccount answers Get Account Information.
func (s *Server) getAccount(c *call) error {
	h := c.w.Header()
	h.Set("X-Ms-Sku-Name", "Standard_LRS")
	h.Set("X-Ms-Account-Kind", "StorageV2")
	h.Set("X-Ms-Is-Hns-Enabled", "false")
	return c.reply(http.StatusOK)
}

// serviceProperties is all there is to tell of the service: nothing is logged,
// counted, kept after deletion or open to browsers.
const serviceProperties = `<?xml version="1.0" encoding="utf-8"?><StorageServiceProperties>` +
	`<Logging><Version>1.0</Version><Delete>false</Delete><Read>false</Read><Write>false</Write>` +
	`<RetentionPolicy><Enabled>false</Enabled></RetentionPolicy></Logging>` +
	`<HourMetrics><Version>1.0</Version><Enabled>false</Enabled>` +
	`<RetentionPolicy><Enabled>false</Enabled></RetentionPolicy></HourMetrics>` +
	`<MinuteMetrics><Version>1.0</Version><Enabled>false</Enabled>` +
	`<RetentionPolicy><Enabled>false</Enabled></RetentionPolicy></MinuteMetrics>` +
	`<Cors /><DefaultServiceVersion>` + defaultVersion + `</DefaultServiceVersion>` +
	`<DeleteRetentionPolicy><Enabled>false</Enabled></DeleteRetentionPolicy>` +
	`<StaticWebsite><Enabled>false</Enabled></StaticWebsite></StorageServiceProperties>`

// getService answers Get Blob Service Properties.
func (s *Server) getService(c *call) error { return c.sendXML([]byte(serviceProperties)) }

// createContainer answers Create Container.
func (s *Server) createContainer(c *call) error {
	metadata, err := readMetadata(c.r.Header)
	if err != nil {
		return err
	}
	container := store.BlobContainer{
		Account: c.at.account, Name: c.at.container, ID: newContent(), ETag: newETag(), Metadata: metadata,
	}
	err = s.db.Update(c.r.Context(), func(tx *store.Tx) error {
		_, err := tx.BlobContainer(c.at.account, c.at.container)
		switch {
		case err == nil:
			return refuse(containerAlreadyExists, "The specified container already exists.")
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		container.Modified = tx.Now()
		return tx.AddBlobContainer(container)
	})
	if err != nil {
		return err
	}
	setVersion(c.w.Header(), container.ETag, container.Modified)
	return c.reply(http.StatusCreated)
}

// getContainer answers Get Container Properties and Get Container Metadata,
// which differ in nothing that a client minds.
func (s *Server) getContainer(c *call) error {
	var container store.BlobContainer
	err := s.db.View(c.r.Context(), func(tx *store.Tx) (err error) {
		container, err = tx.BlobContainer(c.at.account, c.at.container)
		return notFound(err, containerNotFound)
	})
	if err != nil {
		return err
	}
	h := c.w.Header()
	setVersion(h, container.ETag, container.Modified)
	setMetadata(h, container.Metadata)
	setLease(h)
	h.Set("X-Ms-Has-Immutability-Policy", "false")
	h.Set("X-Ms-Has-Legal-Hold", "false")
	return c.reply(http.StatusOK)
}

// setContainerMetadata answers Set Container Metadata, which replaces all.
func (s *Server) setContainerMetadata(c *call) error {
	metadata, err := readMetadata(c.r.Header)
	if err != nil {
		return err
	}
	container, etag := store.BlobContainer{}, newETag()
	err = s.changeContainer(c, func(tx *store.Tx, old store.BlobContainer) error {
		container = old
		container.Metadata, container.ETag, container.Modified = metadata, etag, tx.Now()
		return tx.SetBlobContainer(container)
	})
	if err != nil {
		return err
	}
	setVersion(c.w.Header(), container.ETag, container.Modified)
	return c.reply(http.StatusOK)
}

// deleteContainer answers Delete Container. The blobs are out of reach at once;
// some are removed here and the rest by Sweep.
func (s *Server) deleteContainer(c *call) error {
	var id string
	err := s.changeContainer(c, func(tx *store.Tx, old store.BlobContainer) error {
		id = old.ID
		return tx.DropBlobContainer(id)
	})
	if err != nil {
		return err
	}
	if _, err := s.purge(c.r.Context(), id); err != nil {
		s.log.Warn("dropped container not purged", "container", c.at.container, "error", err)
	}
	return c.reply(http.StatusAccepted)
}

// changeContainer runs an update on a container that meets the conditions of
// the request.
func (s *Server) changeContainer(c *call, change func(*store.Tx, store.BlobContainer) error) error {
	conditions, err := readConditions(c.r.Header, "")
	if err != nil {
		return err
	}
	return s.db.Update(c.r.Context(), func(tx *store.Tx) error {
		old, err := tx.BlobContainer(c.at.account, c.at.container)
		if err != nil {
			return notFound(err, containerNotFound)
		}
		if err := conditions.checkWrite(old.ETag, old.Modified); err != nil {
			return err
		}
		return change(tx, old)
	})
}
