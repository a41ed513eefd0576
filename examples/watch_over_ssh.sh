#!/bin/sh
# Look at a training that runs on another machine, over ssh.
#
#     sh watch_over_ssh.sh runs/plain_pytorch      # any run, also one that is being recorded
#
# Every step is one line that you can type yourself.
set -eu
run=${1:-runs/plain_pytorch}

# 1. A sentence: what is wrong, if anything. 3 and 4 are the exit statuses for a warning and a problem.
colordim diagnose "$run" | head -n 3 || true

# 2. A picture in the terminal, which needs nothing but text. To see it grow:
#        watch --color -n 10 colordim show runs/plain_pytorch --terminal --layer 'conv*'
colordim show "$run" --terminal --width 80 --height 14

# 3. The page in the browser at home. `colordim view` prints its link, and, in an ssh session, the line to type at home: the
#    page then comes through the ssh connection, and nothing is open to the network. Usually you leave it running; here it is
#    stopped as soon as it has said where it is.
said=$(mktemp)
colordim view "$run" --no-browser --port 0 > "$said" &
server=$!
trap 'kill "$server" 2> /dev/null || true; rm -f "$said"' EXIT
until grep -q "From home" "$said" || { [ -z "${SSH_CONNECTION:-}" ] && grep -q "http://" "$said"; }; do
    kill -0 "$server" # it has ended: say so, and stop
    sleep 0.2
done
cat "$said"
