package menu

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/ledger"
)

// Times of following.
const (
	followTick = time.Second // without a change the server is asked whether it is there
	// It answers within this. Long, since nothing is shown by what was heard before a server's end unless that end
	// reaches us, and all that the server said before it comes first.
	followAnswer = 10 * time.Second
	followDial   = 10 * time.Second
	followAgain  = 200 * time.Millisecond // between attempts to connect
	// A server on its way out may take a connection yet and drop it, for long on a busy machine. It counts as gone if
	// it refuses within this after it closed the connection by which changes were heard. Were it back in between, one
	// of the attempts, which come every followSoon, would have found it.
	followEnd  = 30 * time.Second
	followSoon = 20 * time.Millisecond
)

// following is what is known of the changes of rights.
type following int

const (
	// lost: changes may have been made that were not heard.
	lost following = iota
	// followed: every change is heard a few milliseconds after it is committed.
	followed
	// ended: the server closed the connection; all it had to say came before that.
	ended
	// unheard: and since then there has been no server. Nobody can have changed anything.
	unheard
)

// changes hears on a connection of its own whose rights have changed (access.RightsChanges), and makes the memory
// forget them.
type changes struct {
	memory *memory
	pool   *pgxpool.Pool
	log    *slog.Logger

	mu    sync.Mutex
	state following
}

func (c *changes) is(state following) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == state
}

func (c *changes) followed() bool { return c.is(followed) }
func (c *changes) unheard() bool  { return c.is(unheard) }

// become enters a state. Whatever was kept before is forgotten when a change may have been missed, and when changes are
// heard anew after that.
func (c *changes) become(state following) {
	if state == lost || state == followed {
		c.memory.forget(func(*remembered) bool { return true })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if state != c.state {
		c.log.Debug("ussd: changes of rights", "state", state)
	}
	c.state = state
}

func (c *changes) run(ctx context.Context) {
	var over time.Time // when the connection ended
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		wait := followAgain
		switch conn, err := c.connect(ctx); {
		case err == nil:
			c.become(followed)
			if err := c.hear(ctx, conn); err == nil || pgconn.Timeout(err) {
				c.become(lost)
			} else {
				c.become(ended)
				over, wait = time.Now(), 0
			}
			_ = conn.Close(ctx) // nothing of ours is on it
		case absent(err) && !c.is(lost):
			c.become(unheard)
		case c.is(ended) && !pgconn.Timeout(err) && time.Since(over) < followEnd:
			wait = followSoon
		default:
			c.log.Debug("ussd: changes of rights are not heard", "error", err)
			c.become(lost)
		}
		again.Reset(wait)
	}
}

func (c *changes) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, followDial)
	defer cancel()
	config := c.pool.Config()
	config.ConnConfig.RuntimeParams["application_name"] = "zvonok ussd changes"
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, err
	}
	if config.AfterConnect != nil {
		err = config.AfterConnect(ctx, conn)
	}
	if err == nil {
		_, err = conn.Exec(ctx, "LISTEN "+access.RightsChanges)
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// hear takes in changes until the connection ends. The error is a time-out when the server fell silent, nil when ctx
// ended, and anything else when the server ended it.
func (c *changes) hear(ctx context.Context, conn *pgx.Conn) error {
	next := time.Now().Add(followTick)
	for ctx.Err() == nil {
		waiting, cancel := context.WithDeadline(ctx, next)
		n, err := conn.WaitForNotification(waiting)
		cancel()
		switch {
		case err == nil:
			c.take(n.Payload)
		case ctx.Err() != nil:
			return nil
		case !pgconn.Timeout(err):
			return fmt.Errorf("hear of changes of rights: %w", err)
		}
		if time.Now().Before(next) {
			continue
		}
		if err := c.tick(ctx, conn); err != nil {
			c.drain(conn)
			return err
		}
		next = time.Now().Add(followTick)
	}
	return nil
}

// drain takes in what came before the end of a connection and was not looked at yet.
func (c *changes) drain(conn *pgx.Conn) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		n, err := conn.WaitForNotification(gone)
		if err != nil {
			return
		}
		c.take(n.Payload)
	}
}

// tick asks when the rights of those newly remembered end by themselves, and sees by it that the server is there.
func (c *changes) tick(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, followAnswer)
	defer cancel()
	some := c.memory.newcomers()
	var children []ledger.PersonID
	at := c.memory.config.Now()
	for _, r := range some {
		if r.at.Before(at) {
			at = r.at
		}
		for _, child := range r.children {
			children = append(children, child.id)
		}
	}
	ends, err := access.NextEnds(ctx, conn, children, at)
	if err != nil {
		return err
	}
	c.memory.learn(some, ends)
	return nil
}

// take forgets what a change concerns. What it cannot read concerns everybody.
func (c *changes) take(payload string) {
	children, people, phones := map[ledger.PersonID]bool{}, map[access.RepresentativeID]bool{}, map[string]bool{}
	for word := range strings.FieldsSeq(payload) {
		id, err := strconv.ParseInt(word[1:], 10, 64)
		switch {
		case word[0] == 'c' && err == nil:
			children[ledger.PersonID(id)] = true
		case word[0] == 'r' && err == nil:
			people[access.RepresentativeID(id)] = true
		case word[0] == 'p' && err == nil:
			phones[word[1:]] = true
		default:
			c.memory.forget(func(*remembered) bool { return true })
			return
		}
	}
	c.memory.forget(func(r *remembered) bool {
		if people[r.who] || phones[string(r.phone)] {
			return true
		}
		for _, child := range r.children {
			if children[child.id] {
				return true
			}
		}
		return false
	})
}
