// Package city invents a city: organisations, people, cards, guardians,
// subscriptions and menus, as the registry files of an import. The same seed
// makes the same city. All names, phones and cards are made up; the phones are
// of the range 7900 0xx xx xx.
package city

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing/fstest"
	"time"

	"zvonok/ledger/registry"
)

// Spec says how large a city is.
type Spec struct {
	People  int
	Schools int    // organisations of all kinds
	Seed    uint64 // the same seed makes the same city
	Today   time.Time
	MenuFor int // days of menu, beginning with today
}

// Limits of a city.
const (
	MaxPeople = 2_000_000 // more would run out of the range of invented phones
	staffOf   = 14        // one person in so many is staff
	siblingOf = 5         // one pupil in so many has the guardians of the pupil before
	trustedOf = 12        // one pupil in so many has a trusted person besides
)

// Organisation is an organisation of the city with its buildings.
type Organisation struct {
	Code, Kind, Name, Short, Payee string
	Buildings                      []string
}

// Person is a pupil or a member of staff.
type Person struct {
	Code, Kind, Family, Given, Patronymic, Group, Benefit, Card string
	Organisation                                                int
	Guardians                                                   []Guardian
}

// Guardian is a representative of a pupil. Card is a companion's.
type Guardian struct {
	Phone, Email, Family, Given, Patronymic, Language, Role, Card string
	Translit                                                      bool
}

// City is an invented city.
type City struct {
	Spec          Spec
	Organisations []Organisation
	People        []Person
}

// New invents a city. The demo's first four organisations are two schools, a
// college and a kindergarten; further ones follow a city's usual mix.
func New(spec Spec) (*City, error) {
	switch {
	case spec.People < 1 || spec.People > MaxPeople:
		return nil, fmt.Errorf("people: %d is not between 1 and %d", spec.People, MaxPeople)
	case spec.Schools < 1 || spec.Schools > spec.People:
		return nil, fmt.Errorf("schools: %d is not between 1 and the number of people", spec.Schools)
	}
	c := &City{Spec: spec}
	random := rand.New(rand.NewPCG(spec.Seed, 0x377888))
	for i := range spec.Schools {
		c.Organisations = append(c.Organisations, organisation(i))
	}
	phones := 0
	phone := func() string {
		phones++
		return fmt.Sprintf("+7900%07d", phones)
	}
	uids := map[string]bool{}
	uid := func(organisation int) string {
		for {
			// Of four octets, those that begin with 08 are random ids and those with
			// 88 are halves of longer ones (ISO 14443-3): no card is known by them.
			first := random.Uint32() >> 24
			if first == 0x08 || first == 0x88 {
				continue
			}
			u := fmt.Sprintf("%02X%06X", first, random.Uint32()&0xFFFFFF)
			if random.IntN(3) == 0 {
				u = fmt.Sprintf("04%06X%06X", random.Uint32()&0xFFFFFF, random.Uint32()&0xFFFFFF)
			}
			key := fmt.Sprintf("%d/%s", organisation, u)
			if !uids[key] {
				uids[key] = true
				return u
			}
		}
	}
	last := make([]int, spec.Schools) // the latest pupil of each organisation, for siblings
	for i := range last {
		last[i] = -1
	}
	c.People = make([]Person, 0, spec.People)
	for i := range spec.People {
		o := i % spec.Schools
		p := person(random, i, o, c.Organisations[o].Kind)
		p.Card = uid(o)
		if p.Kind == "pupil" {
			if before := last[o]; before >= 0 && random.IntN(siblingOf) == 0 && len(c.People[before].Guardians) > 0 {
				brother := c.People[before]
				p.Family = declined(masculine(brother.Family), p.Given)
				p.Guardians = brother.Guardians
			} else {
				p.Guardians = guardians(random, p, c.Organisations[o].Kind, phone, func() string { return uid(o) })
			}
			last[o] = i
		}
		c.People = append(c.People, p)
	}
	return c, nil
}

func organisation(i int) Organisation {
	n := i + 1
	o := Organisation{Code: fmt.Sprintf("org-%d", n), Payee: fmt.Sprintf("kp-%d", 1+i%2)}
	building := func(suffix string) string { return fmt.Sprintf("b-%d%s", n, suffix) }
	o.Buildings = []string{building("")}
	switch {
	case i == 2 || i > 3 && i%10 == 2:
		o.Kind, o.Name, o.Short = "college", fmt.Sprintf("Колледж № %d", n), fmt.Sprintf("Колледж %d", n)
	case i == 3 || i > 3 && i%10 == 3:
		o.Kind, o.Name, o.Short = "kindergarten", fmt.Sprintf("Детский сад № %d", n), fmt.Sprintf("Сад %d", n)
	default:
		o.Kind, o.Name, o.Short = "school", fmt.Sprintf("Школа № %d", n), fmt.Sprintf("Школа %d", n)
		if i%2 == 0 {
			o.Buildings = append(o.Buildings, building("-2"))
		}
	}
	return o
}

var (
	girls    = strings.Fields("Анна Мария София Алиса Дарья Полина Ева Вера Ксения Арина Варвара Елена Ульяна Таисия Кира Нина")
	boys     = strings.Fields("Пётр Иван Максим Артём Михаил Лев Марк Илья Тимофей Роман Егор Кирилл Фёдор Глеб Степан Олег")
	families = strings.Fields("Петров Соколов Лебедев Морозов Волков Зайцев Воробьёв Голубев Виноградов Беляев Тарасов Белов " +
		"Комаров Орлов Киселёв Макаров Андреев Ильин Гусев Титов Кузьмин Кудрявцев Баранов Куликов Фролов Жуков Зимин Ёлкин Чижов Снегирёв")
	fathers = map[string][2]string{
		"Пётр": {"Петрович", "Петровна"}, "Иван": {"Иванович", "Ивановна"}, "Олег": {"Олегович", "Олеговна"},
		"Михаил": {"Михайлович", "Михайловна"}, "Роман": {"Романович", "Романовна"}, "Егор": {"Егорович", "Егоровна"},
	}
	fatherNames = strings.Fields("Пётр Иван Олег Михаил Роман Егор")
)

func female(given string) bool {
	for _, g := range girls {
		if g == given {
			return true
		}
	}
	return false
}

// masculine and declined turn a family name to the form of its bearer.
func masculine(family string) string { return strings.TrimSuffix(family, "а") }

func declined(family, given string) string {
	if female(given) {
		return family + "а"
	}
	return family
}

func pick(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }

func name(r *rand.Rand, woman bool) (family, given, patronymic string) {
	family = pick(r, families)
	patronymics := fathers[pick(r, fatherNames)]
	if woman {
		return family + "а", pick(r, girls), patronymics[1]
	}
	return family, pick(r, boys), patronymics[0]
}

func person(r *rand.Rand, i, organisation int, kind string) Person {
	p := Person{Code: fmt.Sprintf("p-%d", i+1), Kind: "pupil", Organisation: organisation, Benefit: "none"}
	p.Family, p.Given, p.Patronymic = name(r, r.IntN(2) == 0)
	if i%staffOf == staffOf-1 {
		p.Kind = "staff"
		return p
	}
	switch kind {
	case "kindergarten":
		p.Group = pick(r, []string{"Солнышко", "Ромашка", "Звёздочка", "Теремок"})
		p.Benefit = "full"
	case "college":
		p.Group = fmt.Sprintf("%s-%d", pick(r, []string{"ИТ", "ПК", "ЭК"}), 1+r.IntN(4))
	default:
		grade := 1 + r.IntN(11)
		p.Group = fmt.Sprintf("%d%s", grade, pick(r, []string{"А", "Б", "В"}))
		switch {
		case grade <= 4:
			p.Benefit = "breakfast"
		case r.IntN(10) == 0:
			p.Benefit = "full"
		}
	}
	return p
}

func guardians(r *rand.Rand, p Person, kind string, phone, uid func() string) []Guardian {
	family := p.Family
	if female(p.Given) {
		family = masculine(family)
	}
	mother := Guardian{Phone: phone(), Role: "legal", Language: "ru", Family: family + "а"}
	_, mother.Given, mother.Patronymic = name(r, true)
	switch r.IntN(10) {
	case 0:
		mother.Language = "en"
	case 1, 2:
		mother.Translit = true
	}
	if r.IntN(3) == 0 {
		mother.Email = fmt.Sprintf("parent%s@example.org", mother.Phone[5:])
	}
	list := []Guardian{mother}
	if r.IntN(5) < 2 {
		father := Guardian{Phone: phone(), Role: "legal", Language: "ru", Family: family}
		_, father.Given, father.Patronymic = name(r, false)
		list = append(list, father)
	}
	if r.IntN(trustedOf) == 0 {
		granny := Guardian{Phone: phone(), Role: "trusted", Language: "ru"}
		granny.Family, granny.Given, granny.Patronymic = name(r, true)
		list = append(list, granny)
	}
	if kind == "kindergarten" {
		// The mother collects the child; her card is a companion's.
		companion := mother
		companion.Role, companion.Card = "companion", uid()
		list = append(list, companion)
	}
	return list
}

// Folder returns the city as a registry folder, so that it is imported by the
// same code as a real city's files.
func (c *City) Folder() (*registry.Folder, error) {
	return registry.OpenFS(c.Files())
}

// Files returns the registry files.
func (c *City) Files() fs.FS {
	files := fstest.MapFS{}
	add := func(name string, write func(*bytes.Buffer)) {
		var b bytes.Buffer
		write(&b)
		files[name] = &fstest.MapFile{Data: b.Bytes(), Mode: 0o444}
	}
	add(registry.Payees, func(b *bytes.Buffer) {
		b.WriteString("payee_id,name,inn,payment_code\n")
		b.WriteString("kp-1,Комбинат питания «Пример»,7700000009,916\nkp-2,Комбинат питания «Образец»,7800000002,917\n")
	})
	add(registry.Organisations, func(b *bytes.Buffer) {
		b.WriteString("org_id,kind,name,short_name,payee_id,time_zone,account_prefix\n")
		for i, o := range c.Organisations {
			fmt.Fprintf(b, "%s,%s,%s,%s,%s,Europe/Moscow,%s\n", o.Code, o.Kind, o.Name, o.Short, o.Payee, prefix(i))
		}
	})
	add(registry.Buildings, func(b *bytes.Buffer) {
		b.WriteString("building_id,org_id,address\n")
		for i, o := range c.Organisations {
			for j, code := range o.Buildings {
				fmt.Fprintf(b, "%s,%s,\"ул. Примерная, %d, корп. %d\"\n", code, o.Code, i+1, j+1)
			}
		}
	})
	add(registry.People, c.people)
	add(registry.Cards, c.cards)
	add(registry.Guardians, c.guardians)
	add(registry.Subscriptions, c.subscriptions)
	add(registry.Menu, c.menu)
	return files
}

// prefix begins an organisation's account numbers: four digits, so that ten
// digits have room for a hundred thousand people.
func prefix(i int) string { return fmt.Sprintf("%04d", (i+20)%10000) }

func (c *City) people(b *bytes.Buffer) {
	b.WriteString("person_id,org_id,kind,family_name,given_name,patronymic,group,benefit,account,left\n")
	for i := range c.People {
		p := &c.People[i]
		fmt.Fprintf(b, "%s,%s,%s,%s,%s,%s,%s,%s,,\n", p.Code, c.Organisations[p.Organisation].Code, p.Kind,
			p.Family, p.Given, p.Patronymic, p.Group, p.Benefit)
	}
}

func (c *City) cards(b *bytes.Buffer) {
	b.WriteString("uid,person_id,kind,valid_until\n")
	companions := map[string]bool{}
	for i := range c.People {
		p := &c.People[i]
		kind := "social"
		if i%5 == 0 {
			kind = "fob"
		}
		fmt.Fprintf(b, "%s,%s,%s,\n", p.Card, p.Code, kind)
		for _, g := range p.Guardians {
			if g.Card != "" && !companions[g.Card] {
				companions[g.Card] = true
				fmt.Fprintf(b, "%s,%s,own,\n", g.Card, g.Phone)
			}
		}
	}
}

func (c *City) guardians(b *bytes.Buffer) {
	b.WriteString("phone,email,family_name,given_name,patronymic,language,translit,person_id,role,consent_date,consent_until\n")
	since := c.Spec.Today.AddDate(0, -2, 0).Format(time.DateOnly)
	for i := range c.People {
		p := &c.People[i]
		for _, g := range p.Guardians {
			translit := "no"
			if g.Translit {
				translit = "yes"
			}
			fmt.Fprintf(b, "%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,\n", g.Phone, g.Email, g.Family, g.Given, g.Patronymic,
				g.Language, translit, p.Code, g.Role, since)
		}
	}
}

func (c *City) subscriptions(b *bytes.Buffer) {
	b.WriteString("phone,person_id,event,channel,mode,threshold\n")
	for i := range c.People {
		p := &c.People[i]
		for _, g := range p.Guardians {
			if g.Role == "companion" {
				continue
			}
			fmt.Fprintf(b, "%s,%s,pass,sms,now,\n", g.Phone, p.Code)
			if g.Role != "legal" {
				continue
			}
			// What a new representative gets (notices.md); every third wants to know of meals, too.
			fmt.Fprintf(b, "%s,%s,topup,sms,now,\n%s,%s,threshold,sms,now,150.00\n", g.Phone, p.Code, g.Phone, p.Code)
			if i%3 == 0 {
				fmt.Fprintf(b, "%s,%s,hot,sms,now,\n%s,%s,buffet,sms,now,\n", g.Phone, p.Code, g.Phone, p.Code)
			}
			if g.Email != "" {
				fmt.Fprintf(b, "%s,%s,pass,email,now,\n%s,%s,pass,email,day,\n", g.Phone, p.Code, g.Phone, p.Code)
			}
		}
	}
}

func (c *City) menu(b *bytes.Buffer) {
	b.WriteString("org_id,date,meal,dish,portion_g,kcal,protein_g,fat_g,carbohydrate_g,allergens,price\n")
	type dish struct {
		meal, name, rest string
	}
	cycle := [][]dish{
		{
			{"breakfast", "Каша овсяная", "200,210,6.2,7.1,30.5,молоко,55.00"},
			{"breakfast", "Какао", "200,118,3.8,3.5,17.5,молоко,20.00"},
			{"lunch", "Борщ", "250,104,2.1,5.2,12.3,,38.00"},
			{"lunch", "Котлета с пюре", "250,345,16.4,18.0,28.6,яйцо;молоко,72.00"},
		},
		{
			{"breakfast", "Омлет", "150,195,11.9,15.1,2.6,яйцо;молоко,60.00"},
			{"breakfast", "Чай с лимоном", "200,60,0.2,0.1,15.0,,15.00"},
			{"lunch", "Суп куриный", "250,112,6.8,4.4,11.2,злаки,40.00"},
			{"lunch", "Рыба с рисом", "240,310,17.2,9.8,38.0,рыба,70.00"},
		},
	}
	for _, o := range c.Organisations {
		for day := range c.Spec.MenuFor {
			date := c.Spec.Today.AddDate(0, 0, day)
			for _, d := range cycle[day%len(cycle)] {
				fmt.Fprintf(b, "%s,%s,%s,%s,%s\n", o.Code, date.Format(time.DateOnly), d.meal, d.name, d.rest)
			}
		}
	}
}
