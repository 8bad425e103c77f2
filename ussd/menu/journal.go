package menu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/ledger"
)

// journal is a file of views that the access log has yet to take: those of balances shown from memory while there was
// no database. They are on the disk before the phone shows anything, and stay there over a restart until the database
// has them. Processes of one data folder share the file, by its lock. It holds ids, no names.
type journal struct {
	path string
	mu   sync.Mutex // flock is per open file, and would not keep us from ourselves by itself
}

// journalled is a line of the file.
type journalled struct {
	ActorKind access.ActorKind `json:"actor_kind"`
	ActorID   string           `json:"actor_id"`
	Child     ledger.PersonID  `json:"child"`
	What      string           `json:"what"`
	At        time.Time        `json:"at"`
}

// open opens and locks the file.
func (j *journal) open() (*os.File, error) {
	file, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// write puts views on the disk. It is [errViewsFull] when too many are there already.
func (j *journal) write(views []access.View) error {
	var lines bytes.Buffer
	lines.WriteByte('\n') // ends a line that a process died over; an empty one is no view
	encoder := json.NewEncoder(&lines)
	for _, v := range views {
		if err := encoder.Encode(journalled{v.Who.Kind, v.Who.ID, v.Child, v.What, v.At}); err != nil {
			return fmt.Errorf("write down a view: %w", err)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	file, err := j.open()
	if err != nil {
		return fmt.Errorf("write down views: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("write down views: %w", err)
	}
	if info.Size()+int64(lines.Len()) > journalMax {
		return errViewsFull
	}
	if _, err := file.Write(lines.Bytes()); err != nil {
		return fmt.Errorf("write down views: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("write down views: %w", err)
	}
	return nil
}

// pour writes what is in the file to the access log, in one transaction, and empties it. Should the process die between
// the two the views are logged twice, never not at all. A line that was written in part, since its process died over
// it, was shown to nobody.
func (j *journal) pour(ctx context.Context, pool *pgxpool.Pool) (poured int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if info, err := os.Stat(j.path); errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return 0, nil
	}
	file, err := j.open()
	if err != nil {
		return 0, fmt.Errorf("read the views written down: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(file)
	if err != nil {
		return 0, fmt.Errorf("read the views written down: %w", err)
	}
	var views []access.View
	for line := range bytes.Lines(content) {
		var v journalled
		if json.Unmarshal(line, &v) == nil {
			views = append(views, access.View{
				Who: access.Actor{Kind: v.ActorKind, ID: v.ActorID}, Child: v.Child, What: v.What, Channel: access.USSD, At: v.At,
			})
		}
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		for some := views; len(some) > 0; some = some[min(len(some), viewsAtOnce):] {
			if err := access.LogView(ctx, tx, some[:min(len(some), viewsAtOnce)]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if err := file.Truncate(0); err != nil {
		return 0, fmt.Errorf("empty the file of views: %w", err)
	}
	return len(views), nil
}
