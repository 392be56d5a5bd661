package blob

import (
	"context"
	"io"
	"iter"
	"time"
)

// Bytes keeps content as immutable files under names that it makes itself. A
// file is complete or it is not there; which of them belong to a blob is known
// to the store alone. Methods may be called from many goroutines.
type Bytes interface {
	// Create starts a file.
	Create(ctx context.Context) (Writer, error)

	// Open reads length bytes of a file from an offset; both lie within it. A
	// file that is not there is fs.ErrNotExist.
	Open(ctx context.Context, file string, offset, length int64) (io.ReadCloser, error)

	// Stat gives the size of a file and when it was written, or fs.ErrNotExist.
	Stat(file string) (size int64, modified time.Time, err error)

	// Delete removes a file. One that is not there is no error.
	Delete(ctx context.Context, file string) error

	// Old gives the files last written to before a time, unfinished ones
	// included.
	Old(ctx context.Context, before time.Time) iter.Seq2[string, error]
}

// Writer writes one file.
type Writer interface {
	io.Writer

	// Commit gives the name of the file once it is durable and complete.
	Commit(ctx context.Context) (file string, err error)

	// Abort removes the file. After Commit it does nothing, so that it can be
	// deferred.
	Abort()
}
