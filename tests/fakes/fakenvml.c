/* fakenvml.c - a fake of NVIDIA's libnvidia-ml.so.1 for machines without a GPU. It has no CUDA: it is for
 * accounting, admission, health and kill logic. Functions that are not here are missing, as in an old driver.
 * gcc -shared -fPIC -O2 -Wall -Wextra -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fakenvml.c
 *
 * World: the directory $FAKE_NVML_DIR (default /run/fake-nvml):
 *   state    text file, read afresh by every call (write it by rename; lines "key value..."):
 *            global keys   driver, nvml, cuda (12080), err FUNC CODE, sleep FUNC MS
 *            "gpu UUID"    starts a GPU; its keys: name pci serial total reserved used (bytes)
 *                          gpu_util mem_util temp power_mw limit_mw cc_major cc_minor mig
 *                          ecc ecc_corrected ecc_uncorrected retired_sbe retired_dbe
 *                          retired_pending remap_corr remap_unc remap_pending remap_failed
 *                          minor pstate fan sm_clock mem_clock persistence compute_mode
 *                          proc PID BYTES, err FUNC CODE, sleep FUNC MS, xid CODE SEQ, parent UUID
 *            FUNC is the exported name and may hold wildcards: nvmlDeviceGetMemoryInfo* is v1 and v2, * is every one
 *            "parent UUID" makes the block a MIG instance of that GPU, whose "mig" must be 1; what is held on an
 *            instance counts on its GPU too, where nothing can be allocated directly
 *            "xid CODE SEQ" is an event; event sets get those whose SEQ (rising over the whole world) is above
 *            what was there when the GPU was registered, each once
 *            a numeric key that is missing answers NVML_ERROR_NOT_SUPPORTED, as hardware does
 *   claims/  (mode 1777) one file per fake GPU allocation, "UUID BYTES", held by a POSIX lock
 *            of the process that "allocated": the kernel drops it when that process dies and
 *            F_GETLK gives its pid in the CALLER's pid namespace (0 = not visible there),
 *            which is what drivers >= 535.113 do. Under the lock of claims/.lock, claims/.tally-UUID (mode 0666)
 *            holds "PEAK REFUSED": the most bytes ever claimed together, the claims refused for lack of memory.
 * $FAKE_NVML_VISIBLE (default /run/fake-nvml-visible): if there, the GPUs this container got
 *   ("all", or UUIDs or indices with commas); also a directory of that name + ".d", one entry per GPU. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OK = 0, UNINIT = 1, BADARG = 2, NOTSUP = 3, NOTFOUND = 6, TOOSMALL = 7, NODRIVER = 9, TIMEOUT = 10,
       LOST = 15, NOMEM = 20, BADVER = 25, UNKNOWN = 999 };
enum { MAXGPU = 32, MAXKV = 64, MAXPROC = 128 };
typedef unsigned long long u64;
typedef struct { char key[24], val[104]; } KV;
typedef struct { unsigned pid; u64 bytes; } Proc;
/* idx counts GPUs, or the instances of one; claimed: by the state's proc lines and by claims; held: by claims alone */
typedef struct { char uuid[96], parent[96]; int nkv, np, idx; KV kv[MAXKV]; Proc p[MAXPROC]; u64 claimed, held; } Gpu;
typedef struct { int n, nglob; KV glob[MAXKV]; Gpu g[MAXGPU]; } State;
typedef struct { unsigned pid; u64 used; unsigned gi, ci; } ProcInfo;          /* v2 == v3 */

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static int inits;
static char *handles[256];                     /* a handle is &handles[i]: stable for a UUID */
static struct { int fd; pid_t owner; dev_t dev; ino_t ino; char uuid[96]; u64 bytes; } mine[MAXGPU];

static const char *dir(void) { const char *d = getenv("FAKE_NVML_DIR"); return d ? d : "/run/fake-nvml"; }
static const char *kvget(KV *kv, int n, const char *key) {
    for (int i = 0; i < n; i++) if (!strcmp(kv[i].key, key)) return kv[i].val;
    return NULL;
}
static int rule(KV *kv, int n, const char *key, const char *fn) {   /* err / sleep lines */
    char f[64]; int v;
    for (int i = 0; i < n; i++)
        if (!strcmp(kv[i].key, key) && sscanf(kv[i].val, "%63s %d", f, &v) == 2 &&
            !fnmatch(f, fn, 0)) return v;
    return 0;
}
static int num(Gpu *g, const char *key, long long *v) {
    const char *s = kvget(g->kv, g->nkv, key);
    if (!s) return NOTSUP;
    *v = atoll(s); return OK;
}
static u64 numd(Gpu *g, const char *key) { long long v = 0; num(g, key, &v); return (u64)v; }

static Gpu *find(State *S, const char *uuid) {
    for (int i = 0; i < S->n; i++) if (!strcmp(S->g[i].uuid, uuid)) return &S->g[i];
    return NULL;
}
static Gpu *nth(State *S, const char *parent, int idx) {   /* parent "": of the GPUs themselves */
    for (int i = 0; i < S->n; i++) if (!strcmp(S->g[i].parent, parent) && S->g[i].idx == idx) return &S->g[i];
    return NULL;
}
static int number(State *S, const char *parent) {          /* as above; says which one has which idx */
    int n = 0;
    for (int i = 0; i < S->n; i++) if (!strcmp(S->g[i].parent, parent)) S->g[i].idx = n++;
    return n;
}
static void hold(State *S, Gpu *g, unsigned pid, u64 bytes, int claim) {
    for (; g; g = g->parent[0] ? find(S, g->parent) : NULL) {
        if (bytes != (u64)-1) { g->claimed += bytes; if (claim) g->held += bytes; }
        if (pid && g->np < MAXPROC) g->p[g->np++] = (Proc){ pid, bytes };
    }
}

static void read_claims(State *S) {
    char path[4096]; struct dirent *e;
    snprintf(path, sizeof path, "%s/claims", dir());
    DIR *d = opendir(path);
    if (!d) return;
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.') continue;
        char uuid[96] = ""; u64 bytes = 0; struct stat st; int own = -1; pid_t pid = 0;
        if (fstatat(dirfd(d), e->d_name, &st, 0)) continue;
        for (int i = 0; i < MAXGPU; i++)       /* never open+close our own: that would drop our lock */
            if (mine[i].owner == getpid() && mine[i].dev == st.st_dev && mine[i].ino == st.st_ino) own = i;
        if (own >= 0) { strcpy(uuid, mine[own].uuid); bytes = mine[own].bytes; pid = getpid(); }
        else {
            int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
            if (fd < 0) continue;
            struct flock fl = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
            char b[256]; ssize_t k = pread(fd, b, sizeof b - 1, 0);
            int live = fcntl(fd, F_GETLK, &fl) == 0 && fl.l_type == F_WRLCK;
            pid = fl.l_pid;
            close(fd);
            if (!live) { unlinkat(dirfd(d), e->d_name, 0); continue; }      /* its process is gone */
            if (k <= 0) continue;
            b[k] = 0;
            if (sscanf(b, "%95s %llu", uuid, &bytes) != 2) continue;
        }
        hold(S, find(S, uuid), pid > 0 ? (unsigned)pid : 0, bytes, 1);
    }
    closedir(d);
}

static int named(Gpu *g, const char *word) {
    char ix[12]; snprintf(ix, sizeof ix, "%d", g->idx);
    return !strcmp(word, g->uuid) || (!g->parent[0] && (!strcmp(word, "all") || !strcmp(word, ix)));
}
static State *load(int visible_only) {
    char path[4096], line[512];
    snprintf(path, sizeof path, "%s/state", dir());
    FILE *f = fopen(path, "re");
    if (!f) return NULL;
    State *S = calloc(1, sizeof *S); Gpu *g = NULL;
    struct { int gpu; Proc p; } procs[MAXPROC]; int np = 0;
    while (S && fgets(line, sizeof line, f)) {
        char key[24] = "", val[104] = ""; unsigned pid; u64 by;
        if (line[0] == '#' || sscanf(line, " %23s %103[^\n]", key, val) < 2) continue;
        if (!strcmp(key, "gpu")) {
            if (S->n == MAXGPU) break;
            g = &S->g[S->n++]; sscanf(val, "%95s", g->uuid);
        } else if (g && !strcmp(key, "parent")) {
            sscanf(val, "%95s", g->parent);
        } else if (g && !strcmp(key, "proc")) {
            if (sscanf(val, "%u %llu", &pid, &by) == 2 && np < MAXPROC) { procs[np].gpu = S->n - 1; procs[np++].p = (Proc){ pid, by }; }
        } else {
            KV *kv = g ? g->kv : S->glob; int *n = g ? &g->nkv : &S->nglob;
            if (*n < MAXKV) { strcpy(kv[*n].key, key); strcpy(kv[*n].val, val); (*n)++; }
        }
    }
    fclose(f);
    if (!S) return NULL;
    for (int i = 0; i < S->n; i++) number(S, S->g[i].parent);
    for (int i = 0; i < np; i++) hold(S, &S->g[procs[i].gpu], procs[i].p.pid, procs[i].p.bytes, 0);
    read_claims(S);
    const char *v = getenv("FAKE_NVML_VISIBLE");
    snprintf(path, sizeof path, "%s", v ? v : "/run/fake-nvml-visible");
    char words[4096] = ""; struct dirent *e; DIR *dd; int found = 0;
    if (visible_only && (f = fopen(path, "re"))) { words[fread(words, 1, sizeof words - 1, f)] = 0; fclose(f); found = 1; }
    strncat(path, ".d", sizeof path - strlen(path) - 1);
    if (visible_only && (dd = opendir(path))) {
        while ((e = readdir(dd))) { strncat(words, ",", 2); strncat(words, e->d_name, sizeof words - strlen(words) - 2); }
        closedir(dd); found = 1;
    }
    if (found) {
        int keep[MAXGPU] = {0}, n = 0; char *sv;
        for (char *w = strtok_r(words, ", \n", &sv); w; w = strtok_r(NULL, ", \n", &sv))
            for (int i = 0; i < S->n; i++) {
                Gpu *g = &S->g[i], *whole = g->parent[0] ? find(S, g->parent) : NULL;
                if (named(g, w) || (whole && named(whole, w))) { keep[i] = 1; if (whole) keep[whole - S->g] = 1; }
            }
        for (int i = 0; i < S->n; i++) if (keep[i]) { if (n != i) S->g[n] = S->g[i]; n++; }
        S->n = n;
        for (int i = 0; i < n; i++) number(S, S->g[i].parent);
    }
    return S;
}

static int enter(const char *fn, State **S) {              /* calls that are not about one GPU */
    int ms, r;
    *S = NULL;
    if (!inits && strncmp(fn, "nvmlInit", 8)) return UNINIT;
    if (!(*S = load(1))) return strncmp(fn, "nvmlInit", 8) ? UNKNOWN : NODRIVER;
    if ((ms = rule((*S)->glob, (*S)->nglob, "sleep", fn)) > 0) usleep(ms * 1000u);
    if ((r = rule((*S)->glob, (*S)->nglob, "err", fn))) { free(*S); *S = NULL; return r; }
    return OK;
}
static int check(Gpu *g, const char *fn) {
    int ms = rule(g->kv, g->nkv, "sleep", fn);
    if (ms > 0) usleep(ms * 1000u);
    return rule(g->kv, g->nkv, "err", fn);
}
static int dev(void *h, const char *fn, State **S, Gpu **g) {
    int r = enter(fn, S);
    if (r) return r;
    char **hp = h; *g = NULL;
    if (hp < handles || hp >= handles + 256 || !*hp) r = BADARG;
    else {
        *g = find(*S, *hp);
        r = *g ? check(*g, fn) : LOST;
    }
    if (r) { free(*S); *S = NULL; }
    return r;
}
static int give(Gpu *g, const char *fn, void **out) {
    int r = check(g, fn);
    if (r) return r;
    pthread_mutex_lock(&mu);
    for (int i = 0; i < 256; i++) {
        if (!handles[i]) handles[i] = strdup(g->uuid);
        if (!strcmp(handles[i], g->uuid)) { *out = &handles[i]; break; }
    }
    pthread_mutex_unlock(&mu);
    return OK;
}
static int put(char *o, unsigned len, const char *s) {
    if (!o) return BADARG;
    if (!s) return NOTSUP;
    if (strlen(s) + 1 > len) return TOOSMALL;
    strcpy(o, s); return OK;
}
#define DEV(fn, ...) { State *S; Gpu *g; int r = dev(d, fn, &S, &g); if (r) return r; __VA_ARGS__; free(S); return r; }
#define SYS(fn, ...) { State *S; int r = enter(fn, &S); if (r) return r; __VA_ARGS__; free(S); return r; }
#define NUM(fn, key, T) int fn(void *d, T *o) DEV(#fn, { long long v; if (!o) r = BADARG; else if (!(r = num(g, key, &v))) *o = (T)v; })
#define NUM2(fn, T, k1, k2) int fn(void *d, T *a, T *b) DEV(#fn, { long long v; if (!a || !b) r = BADARG; \
    else if (!(r = num(g, k1, &v))) { *a = (T)v; if (!(r = num(g, k2, &v))) *b = (T)v; } })
#define STR(fn, key) int fn(void *d, char *o, unsigned n) DEV(#fn, r = put(o, n, kvget(g->kv, g->nkv, key)))
#define SSTR(fn, key) int fn(char *o, unsigned n) SYS(#fn, r = put(o, n, kvget(S->glob, S->nglob, key)))

static int init(const char *fn) { State *S; int r = enter(fn, &S); if (!r) { free(S); __atomic_add_fetch(&inits, 1, 5); } return r; }
int nvmlInitWithFlags(unsigned f) { (void)f; return init("nvmlInitWithFlags"); }
int nvmlInit_v2(void) { return init("nvmlInit_v2"); }
int nvmlInit(void) { return init("nvmlInit"); }
int nvmlShutdown(void) { if (!inits) return UNINIT; __atomic_sub_fetch(&inits, 1, 5); return OK; }
const char *nvmlErrorString(int r) {
    static const char *s[] = { "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
        "Already Initialized", "Not Found", "Insufficient Size", "Insufficient External Power", "Driver Not Loaded", "Timeout",
        "Interrupt Request Issue", "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost",
        "GPU requires restart", "Operating system denied access", "Driver/library version mismatch", "In use by another client",
        "Insufficient Memory", "No data", "ECC not supported on vGPU", "Insufficient resources", "Frequency not supported",
        "Argument version mismatch", "Deprecated", "System not ready", "GPU not found", "Invalid state" };
    return r >= 0 && r < (int)(sizeof s / sizeof *s) ? s[r] : "Unknown Error";
}
SSTR(nvmlSystemGetDriverVersion, "driver")
SSTR(nvmlSystemGetNVMLVersion, "nvml")
int nvmlSystemGetCudaDriverVersion_v2(int *o) SYS("nvmlSystemGetCudaDriverVersion_v2", { const char *s = kvget(S->glob, S->nglob, "cuda"); if (!o) r = BADARG; else *o = s ? atoi(s) : 0; })
int nvmlSystemGetCudaDriverVersion(int *o) { return nvmlSystemGetCudaDriverVersion_v2(o); }
int nvmlSystemGetProcessName(unsigned pid, char *o, unsigned n) SYS("nvmlSystemGetProcessName", {
    char p[64]; snprintf(p, sizeof p, "/proc/%u/cmdline", pid); FILE *f = fopen(p, "re");
    if (!f) r = NOTFOUND; else if (!o || !n) r = BADARG; else { size_t k = fread(o, 1, n - 1, f); o[k] = 0; }
    if (f) fclose(f); })

int nvmlDeviceGetCount_v2(unsigned *o) SYS("nvmlDeviceGetCount_v2", if (!o) r = BADARG; else *o = (unsigned)number(S, ""))
int nvmlDeviceGetCount(unsigned *o) { return nvmlDeviceGetCount_v2(o); }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **o) SYS("nvmlDeviceGetHandleByIndex_v2", {
    Gpu *g = nth(S, "", (int)i); r = !o || !g ? BADARG : give(g, "nvmlDeviceGetHandleByIndex_v2", o); })
int nvmlDeviceGetHandleByIndex(unsigned i, void **o) { return nvmlDeviceGetHandleByIndex_v2(i, o); }
static int by(const char *fn, const char *key, const char *want, void **o) SYS(fn, {
    r = want && o ? NOTFOUND : BADARG;
    for (int i = 0; r == NOTFOUND && i < S->n; i++) {
        const char *s = key ? kvget(S->g[i].kv, S->g[i].nkv, key) : S->g[i].uuid;
        if (s && !strcasecmp(s, want)) { r = give(&S->g[i], fn, o); break; }
    } })
int nvmlDeviceGetHandleByUUID(const char *u, void **o) { return by("nvmlDeviceGetHandleByUUID", NULL, u, o); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *u, void **o) { return by("nvmlDeviceGetHandleByPciBusId_v2", "pci", u, o); }
int nvmlDeviceGetHandleBySerial(const char *u, void **o) { return by("nvmlDeviceGetHandleBySerial", "serial", u, o); }
STR(nvmlDeviceGetName, "name")
STR(nvmlDeviceGetSerial, "serial")
int nvmlDeviceGetUUID(void *d, char *o, unsigned n) DEV("nvmlDeviceGetUUID", r = put(o, n, g->uuid))
int nvmlDeviceGetIndex(void *d, unsigned *o) DEV("nvmlDeviceGetIndex", if (!o) r = BADARG; else *o = g->idx)
NUM(nvmlDeviceGetMinorNumber, "minor", unsigned)
NUM(nvmlDeviceGetPersistenceMode, "persistence", unsigned)
NUM(nvmlDeviceGetComputeMode, "compute_mode", unsigned)
NUM(nvmlDeviceGetPowerUsage, "power_mw", unsigned)
NUM(nvmlDeviceGetEnforcedPowerLimit, "limit_mw", unsigned)
NUM(nvmlDeviceGetPowerManagementLimit, "limit_mw", unsigned)
NUM(nvmlDeviceGetPerformanceState, "pstate", unsigned)
NUM(nvmlDeviceGetFanSpeed, "fan", unsigned)
NUM(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pending", unsigned)
NUM2(nvmlDeviceGetCudaComputeCapability, int, "cc_major", "cc_minor")
NUM2(nvmlDeviceGetMigMode, unsigned, "mig", "mig")
int nvmlDeviceGetMaxMigDeviceCount(void *d, unsigned *o) DEV("nvmlDeviceGetMaxMigDeviceCount", if (!o) r = BADARG; else *o = numd(g, "mig") ? 7 : 0)
int nvmlDeviceGetMigDeviceHandleByIndex(void *d, unsigned i, void **o) DEV("nvmlDeviceGetMigDeviceHandleByIndex", {
    Gpu *m = nth(S, g->uuid, (int)i);
    if (!o || g->parent[0]) r = BADARG; else if (!m || !numd(g, "mig")) r = NOTFOUND; else r = give(m, "nvmlDeviceGetMigDeviceHandleByIndex", o); })
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *d, void **o) DEV("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", {
    Gpu *whole = g->parent[0] ? find(S, g->parent) : NULL;
    if (!o || !whole) r = BADARG; else r = give(whole, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", o); })
NUM2(nvmlDeviceGetEccMode, unsigned, "ecc", "ecc")
int nvmlDeviceGetUtilizationRates(void *d, unsigned *o) DEV("nvmlDeviceGetUtilizationRates", { long long v;
    if (!o) r = BADARG; else if (!(r = num(g, "gpu_util", &v))) { o[0] = (unsigned)v; o[1] = (unsigned)numd(g, "mem_util"); } })
int nvmlDeviceGetClockInfo(void *d, int t, unsigned *o) DEV("nvmlDeviceGetClockInfo", { long long v; if (!o) r = BADARG; else if (!(r = num(g, t == 2 ? "mem_clock" : "sm_clock", &v))) *o = (unsigned)v; })
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *o) DEV("nvmlDeviceGetTemperature", { long long v; if (!o || sensor) r = BADARG; else if (!(r = num(g, "temp", &v))) *o = (unsigned)v; })
int nvmlDeviceGetTemperatureV(void *d, unsigned *o) DEV("nvmlDeviceGetTemperatureV", { long long v;       /* version, sensor, temp */
    if (!o || o[1]) r = BADARG; else if (o[0] != 0x100000Cu) r = BADVER; else if (!(r = num(g, "temp", &v))) o[2] = (unsigned)v; })
int nvmlDeviceGetTotalEccErrors(void *d, int type, int counter, u64 *o) DEV("nvmlDeviceGetTotalEccErrors", { long long v; (void)counter;
    if (!o) r = BADARG; else if (!(r = num(g, type ? "ecc_uncorrected" : "ecc_corrected", &v))) *o = (u64)v; })
int nvmlDeviceGetRetiredPages(void *d, int cause, unsigned *n, u64 *a) DEV("nvmlDeviceGetRetiredPages", { long long v;
    if (!n) r = BADARG; else if (!(r = num(g, cause ? "retired_dbe" : "retired_sbe", &v))) {
        if (v && (!a || *n < v)) r = TOOSMALL; else for (int i = 0; i < v; i++) a[i] = 0x1000u * (i + 1); *n = (unsigned)v; } })
int nvmlDeviceGetRemappedRows(void *d, unsigned *c, unsigned *u, unsigned *p, unsigned *f) DEV("nvmlDeviceGetRemappedRows", { long long v;
    if (!(r = num(g, "remap_corr", &v))) { *c = (unsigned)v; *u = numd(g, "remap_unc"); *p = numd(g, "remap_pending"); *f = numd(g, "remap_failed"); } })
int nvmlDeviceGetPciInfo_v3(void *d, void *o) DEV("nvmlDeviceGetPciInfo_v3", {
    struct { char legacy[16]; unsigned domain, bus, device, devid, subid; char bus_id[32]; } *p = o;
    const char *s = kvget(g->kv, g->nkv, "pci"); unsigned fn = 0;
    if (!s) r = NOTSUP; else { memset(p, 0, sizeof *p); sscanf(s, "%x:%x:%x.%x", &p->domain, &p->bus, &p->device, &fn);
        snprintf(p->bus_id, 32, "%.31s", s); snprintf(p->legacy, 16, "%04x:%02x:%02x.%x", p->domain & 0xffff, p->bus & 0xff, p->device & 0xff, fn & 7); } })

static int mem(Gpu *g, u64 *total, u64 *res, u64 *fr, u64 *used) {
    long long t; int r = num(g, "total", &t);
    if (r) return r;
    *total = (u64)t; *res = numd(g, "reserved"); *used = numd(g, "used") + g->claimed;
    if (*used > *total - *res) *used = *total - *res;
    *fr = *total - *res - *used; return OK;
}
int nvmlDeviceGetMemoryInfo(void *d, u64 *o) DEV("nvmlDeviceGetMemoryInfo", { u64 t, s, f, u;               /* total, free, used incl. reserved */
    if (!o) r = BADARG; else if (!(r = mem(g, &t, &s, &f, &u))) { o[0] = t; o[1] = f; o[2] = u + s; } })
int nvmlDeviceGetMemoryInfo_v2(void *d, void *p) DEV("nvmlDeviceGetMemoryInfo_v2", {
    struct { unsigned ver; u64 total, reserved, free, used; } *o = p;
    if (!o) r = BADARG; else if (o->ver != (sizeof *o | 2u << 24)) r = BADVER; else r = mem(g, &o->total, &o->reserved, &o->free, &o->used); })
static int processes(void *d, const char *fn, unsigned *n, ProcInfo *o) DEV(fn, {
    unsigned cap; if (!n) r = BADARG; else { cap = *n; *n = g->np;
        if (g->np && (!o || (int)cap < g->np)) r = TOOSMALL;
        else for (int i = 0; i < g->np; i++) o[i] = (ProcInfo){ g->p[i].pid, g->p[i].bytes, ~0u, ~0u }; } })
static int none(void *d, const char *fn, unsigned *n) DEV(fn, if (!n) r = BADARG; else *n = 0)
#define COMPUTE(fn) int fn(void *d, unsigned *n, ProcInfo *o) { return processes(d, #fn, n, o); }
#define GRAPHICS(fn) int fn(void *d, unsigned *n, ProcInfo *o) { (void)o; return none(d, #fn, n); }
COMPUTE(nvmlDeviceGetComputeRunningProcesses_v3)
COMPUTE(nvmlDeviceGetComputeRunningProcesses_v2)
GRAPHICS(nvmlDeviceGetGraphicsRunningProcesses_v3)
GRAPHICS(nvmlDeviceGetGraphicsRunningProcesses_v2)

typedef struct { int n; struct { char uuid[96]; long long seen; } on[MAXGPU]; } Events;
typedef struct { void *device; u64 type, data; unsigned gi, ci; } EventData;
static int next_xid(Gpu *g, long long after, int *code, long long *seq) {      /* the oldest one after `after` */
    int found = 0;
    for (int i = 0; i < g->nkv; i++) {
        int c; long long s;
        if (strcmp(g->kv[i].key, "xid") || sscanf(g->kv[i].val, "%d %lld", &c, &s) != 2 || s <= after || (found && s >= *seq)) continue;
        *code = c; *seq = s; found = 1;
    }
    return found;
}
int nvmlEventSetCreate(Events **o) SYS("nvmlEventSetCreate", if (!o || !(*o = calloc(1, sizeof **o))) r = BADARG)
int nvmlEventSetFree(Events *e) { if (!e) return BADARG; free(e); return OK; }
int nvmlDeviceRegisterEvents(void *d, u64 types, Events *e) DEV("nvmlDeviceRegisterEvents", {
    int code; long long last = 0;
    if (!e || e->n == MAXGPU) r = BADARG; else if (types & ~8ull) r = NOTSUP;      /* 8: nvmlEventTypeXidCriticalError */
    else { while (next_xid(g, last, &code, &last)) continue; strcpy(e->on[e->n].uuid, g->uuid); e->on[e->n++].seen = last; } })
int nvmlEventSetWait_v2(Events *e, EventData *o, unsigned ms) {
    for (unsigned waited = 0;; waited += 10) {
        State *S; int r = enter("nvmlEventSetWait_v2", &S), code, lost = 0; long long seq;
        if (r) return r;
        for (int i = 0; e && o && i < e->n; i++) {
            Gpu *g = find(S, e->on[i].uuid);
            if (!g) { lost = 1; continue; }
            if (!next_xid(g, e->on[i].seen, &code, &seq)) continue;
            e->on[i].seen = seq; *o = (EventData){ .type = 8, .data = (u64)code, .gi = ~0u, .ci = ~0u };
            r = give(g, "nvmlEventSetWait_v2", &o->device); free(S); return r;
        }
        free(S);
        if (!e || !o) return BADARG;
        if (lost) return LOST;
        if (waited >= ms) return TIMEOUT;
        usleep(10000);
    }
}

static int open_shared(const char *path) {     /* no O_CREAT on another user's file: fs.protected_regular refuses that */
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && (fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) >= 0 && fchmod(fd, 0666)) { close(fd); return -1; }
    return fd;
}
static int tally(State *S, Gpu *g, u64 more, u64 refused) {            /* with claims/.lock held */
    for (; g; refused = 0, g = g->parent[0] ? find(S, g->parent) : NULL) {
        char path[4200], b[64] = ""; u64 peak = 0, no = 0;
        snprintf(path, sizeof path, "%s/claims/.tally-%s", dir(), g->uuid);
        int fd = open_shared(path);
        if (fd < 0) return UNKNOWN;
        if (pread(fd, b, sizeof b - 1, 0) > 0) sscanf(b, "%llu %llu", &peak, &no);
        if (g->held + more > peak) peak = g->held + more;
        int k = snprintf(b, sizeof b, "%llu %llu\n", peak, no + refused), bad = pwrite(fd, b, k, 0) != k;
        close(fd);
        if (bad) return UNKNOWN;
    }
    return OK;
}
/* Not NVML: the fake's cudaMalloc. Sets what this process holds on a GPU (UUID or index) or an instance (UUID)
 * to `bytes` (0 frees); NVML_ERROR_MEMORY when it does not fit. Do not fork between alloc and use. */
int fakenvml_alloc(const char *gpu, u64 bytes) {
    char lock[4096], tmp[4200], fin[4200], b[160]; int r = OK, me = -1, slot = -1; u64 t, s, f, u, old = 0;
    State *S = load(1); Gpu *g = NULL;
    if (!S) return NODRIVER;
    snprintf(lock, sizeof lock, "%s/claims/.lock", dir());
    int lk = open_shared(lock);
    if (lk < 0) { free(S); return UNKNOWN; }
    flock(lk, LOCK_EX);
    free(S); S = load(1);                                              /* again, now alone */
    for (int i = 0; S && i < S->n; i++) if (strcmp(gpu, "all") && named(&S->g[i], gpu)) g = &S->g[i];
    if (!g) { r = NOTFOUND; goto out; }
    if (numd(g, "mig")) { r = NOTSUP; goto out; }                      /* CUDA sees the instances only */
    if ((r = rule(g->kv, g->nkv, "err", "fakenvml_alloc"))) goto out;
    for (int i = 0; i < MAXGPU; i++) { if (mine[i].owner == getpid() && !strcmp(mine[i].uuid, g->uuid)) me = i; else if (mine[i].owner != getpid() && slot < 0) slot = i; }
    if (me >= 0) old = mine[me].bytes;
    if ((r = mem(g, &t, &s, &f, &u))) goto out;
    if (bytes > f + old) { tally(S, g, 0, 1); r = NOMEM; goto out; }
    if (bytes > old && (r = tally(S, g, bytes - old, 0))) goto out;
    int k = snprintf(b, sizeof b, "%s %llu\n", g->uuid, bytes);
    if (me < 0) {
        if (slot < 0) { r = UNKNOWN; goto out; }
        snprintf(tmp, sizeof tmp, "%s/claims/.new-XXXXXX", dir());
        struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET }; struct stat st;
        int fd = mkostemp(tmp, O_CLOEXEC);
        if (fd < 0 || fchmod(fd, 0644) || fcntl(fd, F_SETLK, &fl) || write(fd, b, k) != k || fstat(fd, &st)) { r = UNKNOWN; goto out; }
        strcpy(fin, tmp); memcpy(strstr(fin, "/.new-") + 1, "claim", 5);
        if (rename(tmp, fin)) { r = UNKNOWN; goto out; }
        me = slot; mine[me].fd = fd; mine[me].dev = st.st_dev; mine[me].ino = st.st_ino;
        strcpy(mine[me].uuid, g->uuid); mine[me].bytes = bytes; mine[me].owner = getpid();
    } else if (pwrite(mine[me].fd, b, k, 0) != k || ftruncate(mine[me].fd, k)) r = UNKNOWN;
    else mine[me].bytes = bytes;
    if (!r && !bytes) { close(mine[me].fd); mine[me].owner = 0; mine[me].uuid[0] = 0; }
out:
    free(S); close(lk); return r;
}
