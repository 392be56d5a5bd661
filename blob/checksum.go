package blob

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"hash/crc64"
	"net/http"
)

// checksums are those computed of a content while it passes, and those that a
// client sent to hold them against. MD5 guards against accidents of transport
// and of clients here, never against a person.
type checksums struct {
	md5Sum, crcSum   hash.Hash
	wantMD5, wantCRC []byte
}

// readChecksums reads the headers that say what a body must sum up to. What it
// gives computes these sums and, in any case, one: MD5 if withMD5 is set, else
// the cheaper CRC64.
func readChecksums(h http.Header, withMD5 bool, crcTable *crc64.Table) (*checksums, error) {
	var c checksums
	var err error
	if c.wantMD5, err = readMD5(h, "Content-Md5"); err != nil {
		return nil, err
	}
	if value := h.Get("X-Ms-Content-Crc64"); value != "" {
		if c.wantCRC, err = base64.StdEncoding.DecodeString(value); err != nil || len(c.wantCRC) != crc64.Size {
			return nil, invalidHeader("x-ms-content-crc64", value, "it must be the base64 of 8 bytes")
		}
	}
	if c.wantMD5 != nil || withMD5 {
		c.md5Sum = md5.New()
	}
	if c.wantCRC != nil || c.md5Sum == nil {
		c.crcSum = crc64.New(crcTable)
	}
	return &c, nil
}

func readMD5(h http.Header, name string) ([]byte, error) {
	value := h.Get(name)
	if value == "" {
		return nil, nil
	}
	sum, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(sum) != md5.Size {
		return nil, refuse(invalidMD5, "The MD5 value specified in the request is invalid: it must be the base64 of 16 bytes.").
			with("HeaderName", name).with("HeaderValue", clip(value))
	}
	return sum, nil
}

// Write adds to the sums.
func (c *checksums) Write(p []byte) (int, error) {
	if c.md5Sum != nil {
		c.md5Sum.Write(p)
	}
	if c.crcSum != nil {
		c.crcSum.Write(p)
	}
	return len(p), nil
}

// check holds the sums against those that were sent.
func (c *checksums) check() error {
	if c.wantMD5 != nil && !bytes.Equal(c.wantMD5, c.md5Sum.Sum(nil)) {
		return refuse(md5Mismatch, "The MD5 value specified in the request did not match with the MD5 value calculated by the server.").
			with("UserSpecifiedMd5", base64.StdEncoding.EncodeToString(c.wantMD5)).
			with("ServerCalculatedMd5", c.md5())
	}
	if c.wantCRC != nil && !bytes.Equal(c.wantCRC, littleEndian(c.crcSum)) {
		return refuse(crc64Mismatch, "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.").
			with("UserSpecifiedCrc64", base64.StdEncoding.EncodeToString(c.wantCRC)).
			with("ServerCalculatedCrc64", c.crc64())
	}
	return nil
}

// md5 is the sum in base64, and empty if it was not computed.
func (c *checksums) md5() string {
	if c.md5Sum == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(c.md5Sum.Sum(nil))
}

// crc64 is the sum in base64, and empty if it was not computed.
func (c *checksums) crc64() string {
	if c.crcSum == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(littleEndian(c.crcSum))
}

// tell writes the sums of a body that was received into the answer.
func (c *checksums) tell(h http.Header) {
	if c.md5Sum != nil {
		h.Set("Content-Md5", c.md5())
	}
	if c.crcSum != nil {
		h.Set("X-Ms-Content-Crc64", c.crc64())
	}
}

// littleEndian is the sum as the protocol writes it; Go's is the other way.
func littleEndian(sum hash.Hash) []byte {
	n := binary.BigEndian.Uint64(sum.Sum(nil))
	return binary.LittleEndian.AppendUint64(nil, n)
}

// newCRCTable makes the table for the polynomial of the storage protocol.
func newCRCTable() *crc64.Table { return crc64.MakeTable(0x9A6C9329AC4BC9B5) }
