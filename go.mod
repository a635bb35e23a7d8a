module github.com/zmq-omdp/omdp

go 1.26

require (
	github.com/pebbe/zmq4 v1.4.0
	pgregory.net/rapid v1.3.0
)
