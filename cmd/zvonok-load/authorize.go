package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/cmd/zvonok/city"
)

// askFigures is the verdict of a run of questions.
type askFigures struct {
	People    int     `json:"people"`
	Rate      int     `json:"questions_per_second"`
	Seconds   int     `json:"seconds"`
	Applied   float64 `json:"applied_seconds"`
	Right     int     `json:"rightly_answered"`
	Failed    int64   `json:"not_rightly_answered"`
	AnswerP50 float64 `json:"answer_p50_ms"`
	AnswerP90 float64 `json:"answer_p90_ms"`
	AnswerP99 float64 `json:"answer_p99_ms"`
	AnswerMax float64 `json:"answer_max_ms"`
	CPU       float64 `json:"gateway_cpu_seconds"`
}

// askAll lets doors ask at the rate, whatever the answers take, whether to open to a pupil of theirs: all pupils of the
// city in an order of chance. An answer is right when it opens and names that pupil.
func askAll(ctx context.Context, o options, made *city.City, pool *pgxpool.Pool, g *gateway) error {
	doors, err := addDoors(ctx, pool, made)
	if err != nil {
		return err
	}
	var pupils []int
	for i, p := range made.People {
		if p.Kind == "pupil" && made.Organisations[p.Organisation].Kind != "kindergarten" {
			pupils = append(pupils, i)
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	random.Shuffle(len(pupils), func(i, j int) { pupils[i], pupils[j] = pupils[j], pupils[i] })
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: o.Clients, MaxConnsPerHost: o.Clients},
	}
	waits := make([]time.Duration, o.Ask*o.Seconds)
	var failed atomic.Int64
	applied := atRate(len(waits), o.Ask, func(i int) {
		p := made.People[pupils[i%len(pupils)]]
		asked := time.Now()
		err := ask(ctx, client, g.address(), doors[p.Organisation].key, p.Card, p.Family)
		waits[i] = time.Since(asked)
		if err != nil {
			waits[i] = -1
			if failed.Add(1) <= maxComplaints {
				fmt.Fprintln(os.Stderr, "not rightly answered:", err)
			}
		}
	})
	var right []time.Duration
	for _, wait := range waits {
		if wait >= 0 {
			right = append(right, wait)
		}
	}
	f := askFigures{
		People: o.People, Rate: o.Ask, Seconds: o.Seconds, Applied: applied.Seconds(), Right: len(right), Failed: failed.Load(),
		AnswerP50: percentile(right, 50), AnswerP90: percentile(right, 90), AnswerP99: percentile(right, 99),
		AnswerMax: percentile(right, 100), CPU: g.cpu(),
	}
	if err := f.print(o.JSON); err != nil {
		return err
	}
	if f.Failed > 0 {
		return errors.New("not every door got the right answer")
	}
	return nil
}

// ask puts one question, and says what is wrong with the answer.
func ask(ctx context.Context, client *http.Client, address, key, card, family string) error {
	body := strings.NewReader(fmt.Sprintf(`{"card":%q,"direction":"in"}`, card))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/api/v1/authorize", body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Allow  bool `json:"allow"`
		Person struct {
			Name string `json:"name"`
		} `json:"person"`
	}
	if response.StatusCode != http.StatusOK || json.Unmarshal(data, &answer) != nil {
		return fmt.Errorf("%s: %.200s", response.Status, data)
	}
	if !answer.Allow || !strings.HasPrefix(answer.Person.Name, family) {
		return fmt.Errorf("a pupil %s is answered %.200s", family, data)
	}
	return nil
}

// print writes the figures for a reader or for a program.
func (f askFigures) print(asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(f)
	}
	_, err := fmt.Printf("city of %d people; %d questions/s for %d s (applied in %.1f s)\n"+
		"rightly answered %d, not %d\n"+
		"answer p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms; gateway CPU %.1f s\n",
		f.People, f.Rate, f.Seconds, f.Applied, f.Right, f.Failed, f.AnswerP50, f.AnswerP90, f.AnswerP99, f.AnswerMax, f.CPU)
	return err
}
