package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/parent"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// database.replica_url: a dial and the parents' API read from the replica, the program goes on without one, and a server
// of another cluster stops the start.
func TestTheReplicaOfTheSettingsIsReadByPhonesAndParents(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewPrimary(t)
	replica := primary.Replica(t)
	dir := dataFolder(t)
	write := func(name, replica string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, fmt.Appendf(nil, `
data_dir = %q
[database]
url = %q
replica_url = %q
replica_max_lag = "5m"
[http]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[smpp]
listen = "127.0.0.1:0"
[[ussd.http]]
name = "at"
convention = "africastalking"
secret = "0123456789abcdef"
[[operator]]
name = "mts"
mode = "client"
address = "127.0.0.1:1"
system_id = "school"
password = "secret"
`, dir, primary.URL(), replica), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	settings := write("zvonok.toml", replica.URL())
	if out, errs, code := command(t, dir, "generate", "--people", "300", "--schools", "2", "--seed", "1", "--config", settings); code != exitDone {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	gateway := start(t, dir, "serve", "--config", settings)
	admin := "http://" + gateway.ready.Admin
	ready := func(state string) bool {
		status, body := get(t, admin+"/readyz")
		return status == http.StatusOK && strings.HasPrefix(body, "ok\n") && strings.Contains(body, "replica "+state)
	}
	eventually(t, "the replica to be used", func() bool { return ready("used") })
	if _, metrics := get(t, admin+"/metrics"); !strings.Contains(metrics, `zvonok_database_connections_limit{pool="replica"} 20`) {
		t.Error("the pool of the replica is not in the metrics")
	}
	reads := func() int {
		t.Helper()
		_, metrics := get(t, admin+"/metrics")
		found := regexp.MustCompile(`(?m)^zvonok_database_reads_total\{from="replica"\} (\d+)$`).FindStringSubmatch(metrics)
		if found == nil {
			t.Fatal("reads from the replica are not counted")
		}
		n, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	owner, err := pgx.Connect(t.Context(), primary.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	var number string
	if err := owner.QueryRow(t.Context(), `
		SELECT r.phone FROM access.representative r JOIN access.guardian g ON g.representative_id = r.id
		  JOIN access.consent c ON c.child_id = g.child_id AND c.visits AND c.meals
		 WHERE g.role = 'legal' ORDER BY r.id LIMIT 1`).Scan(&number); err != nil {
		t.Fatal(err)
	}
	dialled := 0
	dial := func() string {
		t.Helper()
		dialled++
		response, err := http.PostForm("http://"+gateway.ready.HTTP+"/ussd/http/at?secret=0123456789abcdef", url.Values{
			"sessionId": {fmt.Sprint("s", dialled)}, "phoneNumber": {"+" + number}, "serviceCode": {"*377*888#"}, "text": {""},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		screen, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", response.StatusCode, screen)
		}
		return string(screen)
	}
	// A machine that is too slow lets a read go to the primary, and the replica rest.
	eventually(t, "a dial to be answered from the replica", func() bool {
		before := reads()
		dial()
		return reads() > before
	})

	call := func(method, path, token string, body, answer any) {
		t.Helper()
		content, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequest(method, "http://"+gateway.ready.HTTP+"/api/v1/parent"+path, bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode >= 300 || json.Unmarshal(text, answer) != nil {
			t.Fatalf("%s %s: %d %s", method, path, response.StatusCode, text)
		}
	}
	var asked parent.CodeAnswer
	call("POST", "/code", "", parent.CodeWish{Phone: "+" + number}, &asked)
	var code string
	eventually(t, "the code", func() bool {
		var body string
		err := owner.QueryRow(t.Context(), `
			SELECT coalesce(body, '') FROM delivery.delivery WHERE address = $1 ORDER BY id DESC LIMIT 1`, number).Scan(&body)
		code = regexp.MustCompile(`\b\d{6}\b`).FindString(body)
		return err == nil && code != ""
	})
	var session parent.SessionAnswer
	call("POST", "/session", "", parent.CodeTyped{Request: asked.Request, Code: code}, &session)
	var children parent.ChildrenView
	eventually(t, "the parents' API to read from the replica", func() bool {
		before := reads()
		call("GET", "/children", session.Token, nil, &children)
		return reads() > before
	})
	if len(children.Children) == 0 {
		t.Error("a mother sees no children")
	}

	// Without it all goes on.
	replica.Kill9(t)
	if screen := dial(); !strings.HasPrefix(screen, "CON ") {
		t.Errorf("without the replica a dial is answered %q", screen)
	}
	eventually(t, "the replica to be missed", func() bool { return ready("unreachable") })
	replica.Restart(t)
	eventually(t, "the replica to be used again", func() bool { return ready("used") })
	if code := gateway.end(os.Interrupt); code != exitDone {
		t.Errorf("exit %d:\n%s", code, gateway.stderr)
	}

	stranger, err := pg.StartCluster(t.Context(), pg.ClusterConfig{DataDir: filepath.Join(dir, "other"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stranger.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	_, errs, code2 := command(t, dir, "serve", "--config", write("other.toml", stranger.URL()))
	if code2 != exitFailed || !strings.Contains(errs, "database.replica_url: it is no replica of the primary: it belongs to another cluster") {
		t.Errorf("with a replica of another cluster: exit %d, %s", code2, errs)
	}
}
