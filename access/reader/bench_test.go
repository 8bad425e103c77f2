package reader_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/reader"
)

// BenchmarkSingleEventUploads sends uploads of one pass each over HTTP from 64
// clients that wait for their answers. It reports acknowledged uploads per
// second and the processor time an upload costs: of this process, which is
// server and clients, and of PostgreSQL. The cluster of the tests does not force
// writes to disk.
func BenchmarkSingleEventUploads(b *testing.B) {
	const clients, people = 64, 2000
	s := newSite(b, people)
	s.now = morning.Add(time.Duration(b.N/people) * 2 * time.Minute)
	uploads := make([][]byte, b.N)
	for i := range uploads {
		direction := "in"
		if i/people%2 == 1 {
			direction = "out"
		}
		at := morning.Add(time.Duration(i/people) * 2 * time.Minute)
		uploads[i] = []byte(document(s.now, pass(i, i%people+1, direction, at)))
	}
	s.exec(`ANALYZE`)
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	var next, acknowledged atomic.Int64
	self, server := cpuOf(b), s.serverCPU()
	b.ResetTimer()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.url+"/api/v1/events",
					bytes.NewReader(uploads[i]))
				if err != nil {
					b.Error(err)
					return
				}
				request.Header.Set("Authorization", "Bearer "+s.door.key)
				response, err := client.Do(request)
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, response.Body); err == nil && response.StatusCode == http.StatusOK {
					acknowledged.Add(1)
				}
				response.Body.Close()
			}
		})
	}
	all.Wait()
	b.StopTimer()
	if n := s.count(`SELECT count(*) FROM door.pass`); acknowledged.Load() != int64(b.N) || n != b.N {
		b.Fatalf("%d sent, %d acknowledged, %d stored", b.N, acknowledged.Load(), n)
	}
	perUpload := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "uploads/s")
	b.ReportMetric(perUpload(cpuOf(b)-self), "µs-cpu-go/upload")
	b.ReportMetric(perUpload(s.serverCPU()-server), "µs-cpu-postgres/upload")
	b.ReportMetric(float64(b.N)/float64(s.count(`SELECT count(*) FROM river.river_job`)), "uploads/transaction")
}

// BenchmarkLateUpload uploads the events of a door that was offline for weeks, a
// thousand a request and in no order, while the same people have passed since
// (issue 6: 100,000 under 30 s).
func BenchmarkLateUpload(b *testing.B) {
	const people, size = 2000, 1000
	s := newSite(b, people)
	for n := 0; n < people; n += size { // all have been seen today
		var events []string
		for i := range size {
			events = append(events, pass(n+i, n+i+1, "in", morning))
		}
		if r := s.door.upload(events...); len(r.Acknowledged) != size {
			b.Fatal(r.body)
		}
	}
	offline := s.device("offline", reader.Door, "o-1-b")
	var uploads []string
	for range b.N {
		var events []string
		for i := range size {
			seq := len(uploads)*size + i
			at := morning.Add(-time.Duration(rand.IntN(30*24*3600)) * time.Second)
			events = append(events, pass(seq, rand.IntN(people)+1, []string{"in", "out"}[seq%2], at))
		}
		uploads = append(uploads, document(morning, events...))
	}
	s.exec(`ANALYZE`)
	self, server := cpuOf(b), s.serverCPU()
	b.ResetTimer()
	for _, upload := range uploads {
		if r := offline.send("/api/v1/events", upload); len(r.Acknowledged) != size {
			b.Fatal(r.body)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64((cpuOf(b)-self).Microseconds())/float64(b.N*size), "µs-cpu-go/event")
	b.ReportMetric(float64((s.serverCPU()-server).Microseconds())/float64(b.N*size), "µs-cpu-postgres/event")
}

// BenchmarkAuthorize asks about cards from 8 doors at once (issue 6: p99 under
// 20 ms at 500 questions a second).
func BenchmarkAuthorize(b *testing.B) {
	const clients, people = 8, 2000
	s := newSite(b, people)
	s.exec(`ANALYZE`)
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	b.ResetTimer()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				began := time.Now()
				r, err := s.door.post("/api/v1/authorize", fmt.Appendf(nil, `{"card":%q,"direction":"in"}`, uid(i%people+1)))
				if err != nil || r.status != http.StatusOK {
					b.Error(r.body, err)
					return
				}
				took[i] = time.Since(began)
			}
		})
	}
	all.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "questions/s")
}

func cpuOf(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// serverCPU is the processor time of PostgreSQL's processes so far.
func (s *site) serverCPU() time.Duration {
	s.t.Helper()
	rows, err := s.pool.Query(s.t.Context(), `SELECT pid FROM pg_stat_activity`)
	must(s.t, err)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	must(s.t, err)
	var ticks int64
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has just ended
		}
		// proc(5): utime and stime are the 14th and 15th field; the second may hold spaces.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
		for _, field := range fields[11:13] {
			n, err := strconv.ParseInt(field, 10, 64)
			must(s.t, err)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
