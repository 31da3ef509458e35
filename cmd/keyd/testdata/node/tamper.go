// Command tamper lets an alias of a running daemon point to another key,
// behind the daemon's back: "tamper DATABASE ALIAS OTHER". It is for the tests of
// the official clients, which want to see what such an alias is answered with.
package main

import (
	"database/sql"
	"log"
	"os"

	_ "github.com/mattn/go-sqlite3"
)

func main() {
	db, err := sql.Open("sqlite3", os.Args[1]+"?_busy_timeout=20000")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("UPDATE alias SET key = (SELECT key FROM alias WHERE name = ?) WHERE name = ?", os.Args[3], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}
