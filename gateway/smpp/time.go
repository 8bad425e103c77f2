package smpp

import (
	"fmt"
	"time"
)

// maxPeriod is the longest relative time we write: the day field goes to 31,
// and months in a relative time mean different things to different SMSCs.
const maxPeriod = 31 * 24 * time.Hour

// FormatTime writes an absolute SMPP time, "YYMMDDhhmmsstnnp" (SMPP 3.4,
// section 7.1.1.1), with the quarters of an hour its zone is off UTC.
func FormatTime(t time.Time) string {
	_, offset := t.Zone()
	sign := '+'
	if offset < 0 {
		sign, offset = '-', -offset
	}
	return fmt.Sprintf("%s%d%02d%c", t.Format("060102150405"), t.Nanosecond()/1e8, offset/900, sign)
}

// FormatPeriod writes a relative SMPP time, "YYMMDDhhmmss000R" (SMPP 3.4,
// section 7.1.1.2), rounded up to whole seconds. It is at least one second and
// at most 31 days.
func FormatPeriod(d time.Duration) string {
	d = min(max(d, time.Second), maxPeriod)
	seconds := int64((d + time.Second - 1) / time.Second)
	return fmt.Sprintf("0000%02d%02d%02d%02d000R",
		seconds/86400, seconds/3600%24, seconds/60%60, seconds%60)
}

// ParseTime reads an absolute or relative SMPP time; a relative one counts from
// now. The empty string is the zero time. The error tells that the text is not
// of the form of section 7.1.1, as a field that a USSD gateway uses for its own
// purpose is not.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if len(s) != 16 {
		return time.Time{}, fmt.Errorf("SMPP time has %d characters, not 16", len(s))
	}
	var f [7]int // year, month, day, hour, minute, second, then tenth and quarters together
	for i := range 15 {
		digit := s[i]
		if digit < '0' || digit > '9' {
			return time.Time{}, fmt.Errorf("SMPP time has no digit at place %d", i+1)
		}
		field := min(i/2, 6)
		f[field] = f[field]*10 + int(digit-'0')
	}
	tenth, quarters := f[6]/100, f[6]%100
	zone := time.Duration(quarters) * 15 * time.Minute
	switch s[15] {
	case 'R':
		return now.AddDate(f[0], f[1], f[2]).Add(time.Duration(f[3])*time.Hour +
			time.Duration(f[4])*time.Minute + time.Duration(f[5])*time.Second), nil
	case '+':
	case '-':
		zone = -zone
	default:
		return time.Time{}, fmt.Errorf("SMPP time ends in neither +, - nor R")
	}
	if quarters > 48 {
		return time.Time{}, fmt.Errorf("SMPP time is more than 12 hours off UTC")
	}
	t := time.Date(2000+f[0], time.Month(f[1]), f[2], f[3], f[4], f[5], tenth*1e8,
		time.FixedZone("", int(zone/time.Second)))
	if t.Month() != time.Month(f[1]) || t.Day() != f[2] || f[3] > 23 || f[4] > 59 || f[5] > 59 {
		return time.Time{}, fmt.Errorf("SMPP time is not a time of the calendar")
	}
	return t, nil
}
