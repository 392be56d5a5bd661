package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// item is an answer of the service that is shown without being understood whole.
type item map[string]any

func readItem(value jsontext.Value) item {
	var i item
	_ = json.Unmarshal(value, &i) // what is no object has no facts
	return i
}

// at is the value at the end of a path of names, nil if there is none.
func (i item) at(path ...string) any {
	var value any = map[string]any(i)
	for _, name := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[name]
	}
	return value
}

// text is the value at a path as a person reads it.
func (i item) text(path ...string) string {
	switch value := i.at(path...).(type) {
	case nil:
		return ""
	case string:
		return value
	case float64:
		return strconv.FormatFloat(value, 'f', -1, 64)
	default:
		return fmt.Sprint(value)
	}
}

// time is the time at a path, the zero time if there is none.
func (i item) time(path ...string) time.Time {
	t, _ := time.Parse(time.RFC3339, i.text(path...))
	return t
}

// of makes a column of what stands at a path.
func of(title string, path ...string) column {
	return column{title, func(i item) string { return i.text(path...) }}
}

// age makes a column of how long ago the time at a path was.
func age(title string, now func() time.Time, path ...string) column {
	return column{title, func(i item) string {
		if t := i.time(path...); !t.IsZero() {
			return short(now().Sub(t))
		}
		return ""
	}}
}

// short writes a duration with two units at most.
func short(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
