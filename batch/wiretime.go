package batch

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Time is a moment as the protocol writes it: UTC, RFC 3339, at most seven
// fractional digits with trailing zeros dropped.
type Time struct{ time.Time }

// timeLayout drops trailing zeros and stops at the service's own resolution
// of 100 ns.
const timeLayout = "2006-01-02T15:04:05.9999999Z"

// At wraps a time.Time, in UTC.
func At(t time.Time) Time { return Time{t.UTC()} }

// MarshalText writes the time as the service does.
func (t Time) MarshalText() ([]byte, error) {
	return t.UTC().AppendFormat(make([]byte, 0, len(timeLayout)), timeLayout), nil
}

// UnmarshalText reads RFC 3339 with or without an offset; a time without one
// is UTC, as older clients send it.
func (t *Time) UnmarshalText(b []byte) error {
	parsed, err := ParseTime(string(b))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// MarshalJSON writes the same in quotes. Without it the methods of the
// embedded time.Time would be taken, which have another form.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(make([]byte, 0, len(timeLayout)+2), `"`+timeLayout+`"`), nil
}

// UnmarshalJSON reads what UnmarshalText reads; null changes nothing.
func (t *Time) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	return t.UnmarshalText([]byte(strings.Trim(string(b), `"`)))
}

// ParseTime reads a wire time. The error says what would be right.
func ParseTime(s string) (Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02"} {
		if parsed, err := time.Parse(layout, s); err == nil {
			return At(parsed), nil
		}
	}
	return Time{}, fmt.Errorf("%q is not a date and time like 2006-01-02T15:04:05Z", s)
}

// Duration is a length of time in ticks of 100 ns, the service's own unit. It
// is not a time.Duration because the protocol's largest value, [Unlimited],
// does not fit into one.
type Duration int64

// Lengths in ticks.
const (
	Tick   Duration = 1
	Second          = 10_000_000 * Tick
	Minute          = 60 * Second
	Hour            = 60 * Minute
	Day             = 24 * Hour

	// Unlimited is what the service shows where no limit is set:
	// P10675199DT2H48M5.4775807S.
	Unlimited Duration = math.MaxInt64
)

// DurationOf converts from a time.Duration, cutting below 100 ns.
func DurationOf(d time.Duration) Duration { return Duration(d / 100) }

// Std converts to a time.Duration; what does not fit becomes the longest one.
func (d Duration) Std() time.Duration {
	switch {
	case d > math.MaxInt64/100:
		return math.MaxInt64
	case d < math.MinInt64/100:
		return math.MinInt64
	}
	return time.Duration(d) * 100
}

// String writes ISO 8601 as the service does: days, hours, minutes, seconds
// with up to seven digits.
func (d Duration) String() string {
	if d == 0 {
		return "PT0S"
	}
	var b strings.Builder
	ticks := uint64(d)
	if d < 0 {
		b.WriteByte('-')
		ticks = -ticks
	}
	b.WriteByte('P')
	part := func(unit Duration, name byte) {
		if n := ticks / uint64(unit); n > 0 {
			b.WriteString(strconv.FormatUint(n, 10))
			b.WriteByte(name)
			ticks %= uint64(unit)
		}
	}
	part(Day, 'D')
	if ticks == 0 {
		return b.String()
	}
	b.WriteByte('T')
	part(Hour, 'H')
	part(Minute, 'M')
	if ticks > 0 {
		b.WriteString(strconv.FormatUint(ticks/uint64(Second), 10))
		if fraction := ticks % uint64(Second); fraction > 0 {
			b.WriteByte('.')
			b.WriteString(strings.TrimRight(fmt.Sprintf("%07d", fraction), "0"))
		}
		b.WriteByte('S')
	}
	return b.String()
}

// MarshalText writes ISO 8601.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads ISO 8601.
func (d *Duration) UnmarshalText(b []byte) error {
	parsed, err := ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// ParseDuration reads an ISO 8601 duration. Years, months and weeks count as
// 365, 30 and 7 days, as the service keeps them; fractions of a second beyond
// 100 ns are cut. A value longer than [Unlimited] is an error.
func ParseDuration(s string) (Duration, error) {
	bad := fmt.Errorf("%q is not an ISO 8601 duration like PT15M or P1DT2H", s)
	rest, negative := strings.CutPrefix(s, "-")
	rest, ok := strings.CutPrefix(rest, "P")
	if !ok || rest == "" || len(s) > 64 {
		return 0, bad
	}
	var total uint64
	inTime, any := false, false
	for rest != "" {
		if !inTime && rest[0] == 'T' {
			inTime, rest = true, rest[1:]
			if rest == "" {
				return 0, bad
			}
			continue
		}
		end := strings.IndexFunc(rest, func(r rune) bool { return r != '.' && r != ',' && (r < '0' || r > '9') })
		if end <= 0 {
			return 0, bad
		}
		unit, ok := durationUnit(rest[end], inTime)
		if !ok {
			return 0, bad
		}
		ticks, err := scaleTicks(rest[:end], unit)
		if err != nil || total+ticks > math.MaxInt64 {
			return 0, bad
		}
		total, rest, any = total+ticks, rest[end+1:], true
	}
	if !any {
		return 0, bad
	}
	if negative {
		return -Duration(total), nil
	}
	return Duration(total), nil
}

func durationUnit(letter byte, inTime bool) (Duration, bool) {
	if inTime {
		unit, ok := map[byte]Duration{'H': Hour, 'M': Minute, 'S': Second}[letter]
		return unit, ok
	}
	unit, ok := map[byte]Duration{'Y': 365 * Day, 'M': 30 * Day, 'W': 7 * Day, 'D': Day}[letter]
	return unit, ok
}

// scaleTicks multiplies a decimal number by a unit without leaving integers.
func scaleTicks(number string, unit Duration) (uint64, error) {
	whole, fraction, _ := strings.Cut(strings.ReplaceAll(number, ",", "."), ".")
	n, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || n > math.MaxInt64/uint64(unit) {
		return 0, fmt.Errorf("number %q out of range", number)
	}
	ticks := n * uint64(unit)
	step := uint64(unit)
	for _, digit := range fraction {
		if digit < '0' || digit > '9' {
			return 0, fmt.Errorf("number %q malformed", number)
		}
		step /= 10
		ticks += uint64(digit-'0') * step
	}
	return ticks, nil
}
