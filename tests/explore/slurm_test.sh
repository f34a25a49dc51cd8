#!/usr/bin/env bash
# examples/slurm on a Slurm of one node that this test starts on the loopback interface, in a folder
# of its own; exit 77 with the reason if that fails.
#     slurm_test.sh MOAT EXAMPLE
set -eu
moat=$(realpath "$1")
example=$(realpath "$2")
PATH=$PATH:/usr/sbin:/sbin

skip() {
    echo "SKIPPED: $1"
    exit 77
}

for program in slurmctld slurmd sbatch sinfo; do
    command -v $program >/dev/null || skip "no $program (slurm-wlm)"
done
[ "$(id -u)" = 0 ] || skip "slurmd starts jobs as another user, which takes root"
plugins=$(dirname "$(find /usr/lib /usr/lib64 -name auth_none.so -path '*slurm*' 2>/dev/null | head -1)")
[ -f "$plugins/cred_none.so" ] || skip "this Slurm knows no authentication without munge"

folder=$(mktemp -d)
pids=()
end() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait "${pids[@]}" 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
mkdir "$folder"/{state,spool,work}
node=$(hostname -s)
port=$((20000 + $$ % 20000))
cat >"$folder/slurm.conf" <<END
ClusterName=moat
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=$node Default=YES State=UP
END
export SLURM_CONF=$folder/slurm.conf
slurmctld -D -i >"$folder/slurmctld.out" 2>&1 &
pids+=($!)
slurmd -D >"$folder/slurmd.out" 2>&1 &
pids+=($!)
for _ in $(seq 150); do
    [ "$(timeout 5 sinfo -h -o %t 2>/dev/null)" = idle ] && break
    for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null || break 2; done
    sleep 0.2
done
if [ "$(timeout 5 sinfo -h -o %t 2>/dev/null)" != idle ]; then
    tail -n 20 "$folder"/*.log "$folder"/*.out
    skip "slurmctld and slurmd do not come up on this machine; their words are above"
fi

cd "$folder/work"
job=$(MOAT=$moat timeout 20 sbatch --parsable --export=ALL "$example")
for _ in $(seq 300); do # `sbatch --wait` polls ever less often
    [ -n "$(timeout 5 squeue -h -j "$job" 2>/dev/null)" ] || break
    sleep 0.2
done
"$moat" explore --merge shard_*.json | tee sum.json
grep -q '"executions":7628' sum.json || {
    tail -n 20 "$folder"/*.log "$folder"/work/*
    exit 1
}
