#!/bin/sh
# A stand-in for `tessera`. Files in the folder FAKE_TESSERA, which need not exist, say what it does:
#   codes      exit code of each start, one a line; the last one is that of all further starts (0)
#   seconds    how long it runs (0)
#   stopped    the job has been stopped: it ends with 4 (`tessera jobs stop` writes it)
#   no_id      `submit` prints no id of its job before SIGTERM
#   status     status in the summary of a night that ends with 0 (complete)
# It writes there: `environment`, `calls` (a line for each start), `signals` (a line for each SIGTERM of this process, and of a child).
set -u
cd "$FAKE_TESSERA" || exit 99
env >environment
echo "$*" >>calls
number=$(wc -l <calls)
code=$(sed -n "${number}p" codes 2>/dev/null)
code=${code:-$(tail -n 1 codes 2>/dev/null)}
code=${code:-0}
job=
case "$1 $2" in
    "submit "*) job=raysubmit_tessera_$number ;;
    "jobs stop")
        echo "$3" >>stopped
        exit 0
        ;;
esac

end() {
    code=$1
    status=failed again=false cause="\"cause $code: a \\\"quoted\\\" word\""
    [ "$code" -ne 0 ] || { status=$(cat status 2>/dev/null || echo complete) && cause=null; }
    [ "$code" -ne 4 ] || again=true
    text="{\"contract\": 1, \"night\": \"n$number\", \"status\": \"$status\", \"exit_code\": $code, \"try_again\": $again,"
    text="$text \"cause\": $cause, \"advice\": \"advice $code\", \"samples_left\": 7, \"report\": {\"rows\": 5}}"
    [ "$code" -eq 0 ] || echo "tessera: cause $code" >&2
    while [ $# -gt 0 ]; do
        shift
        [ "${1:-}" != --summary ] || echo "$text" >"$2"
        [ "${1:-}" != --json ] || echo "$text"
    done
    exit "$code"
}

stop() {
    echo main >>signals
    [ -z "$job" ] || echo "job $job goes on: \`tessera jobs stop $job\`" >&2
    end 4 "$@"
}
trap 'stop "$@"' TERM

[ -z "$job" ] || [ -e no_id ] || echo "job $job on http://head:8265" >&2
echo "a line of the log" >&2
seconds=$(cat seconds 2>/dev/null || echo 0)
if [ "$seconds" != 0 ]; then
    sh -c 'trap "echo child >>signals; exit" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1 &
    child=$!
    echo $$ >running.part
    mv running.part running
    sleep "$seconds" &
    sleeper=$!
    while kill -0 "$sleeper" 2>/dev/null; do
        [ ! -e stopped ] || { code=4 && kill "$sleeper"; }
        sleep 0.1
    done
    kill -KILL "$child"
fi
end "$code" "$@"
