package reader

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file knows files, and nothing of passes (spec/door.md, Adapters). A
// controller that can only export writes CSV files into a folder; each line is an
// event of one device, in columns named like the fields of the device interface:
//
//	seq,type,card,direction,at,companion_card,person,by,reason
//
// at is required; type is pass without its column. Without seq a line's number is
// made of what it says, so a line that is exported twice happens once.
//
// A file is taken when it has not changed for dropQuiet and moved to done/ when
// all of it is committed; a crash before that takes it again, which changes
// nothing. Lines that are no events, or were rejected, are named beside it in a
// file .errors.

// DropFolder is a folder into which one device's events are exported.
type DropFolder struct {
	Dir    string
	Device DeviceID
}

// Limits of files.
const (
	dropQuiet   = 2 * time.Second // a file that was written to within it is still being written
	maxDropFile = 64 << 20
)

// Sweep takes the files that lie in a folder, in the order of their names. An
// error leaves the file it is about, and those after it, for the next time.
func (in *Intake) Sweep(ctx context.Context, folder DropFolder) error {
	entries, err := os.ReadDir(folder.Dir)
	if err != nil {
		return fmt.Errorf("look into a drop folder: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !entry.Type().IsRegular() || strings.HasPrefix(name, ".") || !strings.EqualFold(filepath.Ext(name), ".csv") {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < dropQuiet {
			continue // another process has it, or it is still being written
		}
		if err == nil {
			err = in.takeFile(ctx, folder, name)
		}
		if err != nil {
			return fmt.Errorf("take %s of a drop folder: %w", name, err)
		}
	}
	return nil
}

// takeFile stores a file's lines and moves it away.
func (in *Intake) takeFile(ctx context.Context, folder DropFolder, name string) error {
	devices, err := devicesByID(ctx, in.pool, []DeviceID{folder.Device})
	if err != nil {
		return err
	}
	known := devices[folder.Device]
	if known == nil || known.revoked {
		return fmt.Errorf("device %d: %w", folder.Device, errKey)
	}
	device := &known.Device
	file, err := os.Open(filepath.Join(folder.Dir, name))
	if err != nil {
		return err
	}
	defer file.Close()
	now := in.now()
	lines, complaints, numbered := readDrop(io.LimitReader(file, maxDropFile), device, clock{receivedAt: now})
	if !numbered {
		if err := in.countForeign(ctx, []*upload{{device: device}}); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(lines, maxEvents) {
		u := &upload{device: device, clock: clock{receivedAt: now}}
		lineOf := map[int64]int{}
		for _, l := range chunk {
			u.facts = append(u.facts, l.fact)
			lineOf[l.fact.seq] = l.number
		}
		answers, err := in.storeAll(ctx, []*upload{u})
		if err != nil {
			return err
		}
		for _, r := range answers[0].rejected {
			complaints = append(complaints, complaint{lineOf[r.Seq], string(r.Code) + ": " + r.Message})
		}
	}
	return putAway(folder.Dir, name, complaints)
}

// complaint is what is wrong with a line.
type complaint struct {
	line int
	text string
}

type dropLine struct {
	number int
	fact   *fact
}

// readDrop reads the lines of a file, and tells whether they have numbers of
// their own; what is no event ends in a complaint.
func readDrop(r io.Reader, device *Device, c clock) (lines []dropLine, complaints []complaint, numbered bool) {
	in := csv.NewReader(r)
	in.FieldsPerRecord = -1
	header, err := in.Read()
	if err != nil {
		return nil, []complaint{{1, "the header cannot be read: " + err.Error()}}, true
	}
	column := map[string]int{}
	for i, name := range header {
		column[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))] = i
	}
	if _, ok := column["at"]; !ok {
		return nil, []complaint{{1, "the header lacks the column at"}}, true
	}
	_, numbered = column["seq"]
	same := map[string]int{} // lines that say the same, in one file
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return lines, complaints, numbered
		}
		number, _ := in.FieldPos(0)
		var broken *csv.ParseError
		if errors.As(err, &broken) {
			complaints = append(complaints, complaint{broken.StartLine, broken.Err.Error()})
			continue
		}
		if err != nil {
			return lines, append(complaints, complaint{number, err.Error()}), numbered
		}
		field := func(name string) string {
			if i, ok := column[name]; ok && i < len(record) {
				return strings.TrimSpace(record[i])
			}
			return ""
		}
		event := DeviceEvent{
			Type: field("type"), At: field("at"), Card: field("card"), CompanionCard: field("companion_card"),
			Direction: strings.ToLower(field("direction")), Person: field("person"), By: field("by"), Reason: field("reason"),
		}
		if event.Type == "" {
			event.Type = "pass"
		}
		seq, err := strconv.ParseInt(field("seq"), 10, 64)
		if !numbered {
			text := strings.Join(record, "\x00")
			same[text]++
			sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", text, same[text]))
			seq, err = int64(binary.BigEndian.Uint64(sum[:])>>11), nil // 53 bits
		}
		if err != nil || seq < 0 || seq > maxSeq {
			complaints = append(complaints, complaint{number, "seq: want a number from 0 to 2^53"})
			continue
		}
		event.Seq = &seq
		raw, err := json.Marshal(event)
		if err != nil { // it holds only strings and a number
			panic(err)
		}
		lines = append(lines, dropLine{number, read(&event, keepable(raw), device, c)})
	}
}

// putAway names the complaints and moves the file to done/. A name that is taken
// there gets the time before it.
func putAway(dir, name string, complaints []complaint) error {
	done := filepath.Join(dir, "done")
	if err := os.MkdirAll(done, 0o750); err != nil {
		return err
	}
	target := filepath.Join(done, name)
	if _, err := os.Stat(target); err == nil {
		target = filepath.Join(done, time.Now().UTC().Format("20060102T150405.000000000-")+name)
	}
	if len(complaints) > 0 {
		slices.SortStableFunc(complaints, func(a, b complaint) int { return a.line - b.line })
		var b strings.Builder
		for _, c := range complaints {
			fmt.Fprintf(&b, "line %d: %s\n", c.line, c.text)
		}
		if err := os.WriteFile(target+".errors", []byte(b.String()), 0o640); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(dir, name), target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // not there: another process was as fast
	}
	return nil
}
