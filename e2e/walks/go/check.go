package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"time"

	"github.com/Azure/azure-sdk-for-go/services/batch/2020-09-01.12.0/batch"
	"github.com/Azure/go-autorest/autorest"
)

// fileNames sends a request for a list of files and reads the names in it. The client makes and
// sends the request but cannot read the answer: it wants the lengths of files as numbers, and the
// protocol writes numbers of 64 bits as strings.
func (w *walk) fileNames(request *http.Request, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	answer, err := w.files.ListFromTaskSender(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var list struct {
		Value []struct{ Name string }
	}
	err = autorest.Respond(answer, autorest.WithErrorUnlessOK(), autorest.ByUnmarshallingJSON(&list))
	var names []string
	for _, file := range list.Value {
		names = append(names, file.Name)
	}
	return names, err
}

func content(file batch.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer (*file.Value).Close()
	text, err := io.ReadAll(*file.Value)
	return string(text), err
}

// waitFor asks again and again until done, for two minutes at most.
func waitFor(what string, done func() (bool, error)) error {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("no %s in two minutes", what)
}

// errorCode finds the service's word in the client's error. This client cannot decode the message
// of an error, an object with a language, and quotes the body of the answer instead.
var errorCode = regexp.MustCompile(`\\"code\\":\\"(\w+)\\"`)

// fails expects the service to have refused a call with this error.
func fails(err error, code string, status int) error {
	var detailed autorest.DetailedError
	if err == nil {
		return fmt.Errorf("no error %s", code)
	}
	if !errors.As(err, &detailed) {
		return fmt.Errorf("error is not %s: %w", code, err)
	}
	match := errorCode.FindStringSubmatch(detailed.Error())
	if match == nil {
		return fmt.Errorf("no code in error %w", err)
	}
	return errors.Join(equal("status", detailed.StatusCode, status), equal("error", match[1], code))
}

// gone tells a 404 from other errors.
func gone(err error) (bool, error) {
	var detailed autorest.DetailedError
	if errors.As(err, &detailed) && detailed.StatusCode == http.StatusNotFound {
		return true, nil
	}
	return false, err
}

func equal(what string, got, want any) error {
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	if g.CanInt() && w.CanInt() && g.Int() == w.Int() || reflect.DeepEqual(got, want) {
		return nil
	}
	return fmt.Errorf("%s: got %v, want %v", what, got, want)
}
