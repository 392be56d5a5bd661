package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

func (w *walk) uploadInputs(ctx context.Context) error {
	for _, name := range []string{w.inputs, w.outputs} {
		if _, err := w.storage.CreateContainer(ctx, name, nil); err != nil {
			return err
		}
	}
	for n := range 4 {
		var values bytes.Buffer
		for k := range 10 {
			fmt.Fprintln(&values, 100*(n+1)+7*k%10) // the highest is 100 * (n + 1) + 9
		}
		if _, err := w.storage.UploadBuffer(ctx, w.inputs, inputName(n), values.Bytes(), nil); err != nil {
			return err
		}
	}
	return nil
}

// blobURL is a URL with which anybody may read one blob for an hour.
func (w *walk) blobURL(name string) (string, error) {
	blob := w.storage.ServiceClient().NewContainerClient(w.inputs).NewBlobClient(name)
	return blob.GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(time.Hour), nil)
}

// containerURL is a URL with these permissions for a whole container, for an hour.
func (w *walk) containerURL(name string, permissions sas.ContainerPermissions) (string, error) {
	return w.storage.ServiceClient().NewContainerClient(name).GetSASURL(permissions, time.Now().Add(time.Hour), nil)
}

func (w *walk) downloadOutputs(ctx context.Context) error {
	var names, want []string
	pages := w.storage.NewListBlobsFlatPager(w.outputs, nil)
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, blob := range page.Segment.BlobItems {
			names = append(names, *blob.Name)
		}
	}
	for k := range taskCount {
		want = append(want, taskID(k)+"/highest.txt")
		if k%50 == 0 {
			want = append(want, taskID(k)+"/logs/stderr.txt", taskID(k)+"/logs/stdout.txt")
		}
	}
	if err := equal("blobs", names, want); err != nil {
		return err
	}
	for k := 0; k < taskCount; k += 9 {
		text, err := w.download(ctx, taskID(k)+"/highest.txt")
		if err != nil {
			return err
		}
		if err := equal("highest", text, fmt.Sprintln(100*(k%4+1)+9)); err != nil {
			return err
		}
	}
	text, err := w.download(ctx, "task-050/logs/stdout.txt")
	if err != nil {
		return err
	}
	return equal("log", text, "hello from task-050, worker 50\n")
}

func (w *walk) download(ctx context.Context, name string) (string, error) {
	answer, err := w.storage.DownloadStream(ctx, w.outputs, name, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

func inputName(n int) string { return fmt.Sprintf("measure-%d.txt", n) }
