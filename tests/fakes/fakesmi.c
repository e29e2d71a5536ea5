/* fakesmi.c - stands in for nvidia-smi; exit status = NVML code, as the real one.
 * gcc -O2 -Wall -Wextra -o nvidia-smi fakesmi.c -ldl
 *   nvidia-smi                                  one line a GPU (the real one draws a table)
 *   nvidia-smi -L | --list-gpus                 GPUs and MIG instances, as the real one prints them
 *   nvidia-smi --query-gpu=FIELD,... --format=csv[,noheader][,nounits]   the fields in `value`
 *   nvidia-smi fake-alloc GPU MIB [SECONDS]     holds MIB on GPU till it ends (not in the real one) */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long u64;
typedef struct { unsigned version; u64 total, reserved, free, used; } Memory;
static void *lib;
#define CALL(name, ...) (((int (*)())dlsym(lib, #name))(__VA_ARGS__))

static const char *text(int code) { return ((const char *(*)(int))dlsym(lib, "nvmlErrorString"))(code); }

/* Writes the value of a field; returns its unit ("" for none), NULL for a field that is not known here. */
static const char *value(void *d, unsigned index, const char *field, char *out) {
    Memory m = { .version = sizeof m | 2u << 24 }; unsigned n[2]; u64 *bytes = NULL; int r;
    strcpy(out, "[N/A]");
    if (!strcmp(field, "index")) { sprintf(out, "%u", index); return ""; }
    if (!strcmp(field, "uuid")) { CALL(nvmlDeviceGetUUID, d, out, 96); return ""; }
    if (!strcmp(field, "name")) { CALL(nvmlDeviceGetName, d, out, 96); return ""; }
    if (!strcmp(field, "driver_version")) { CALL(nvmlSystemGetDriverVersion, out, 96); return ""; }
    if (!strcmp(field, "temperature.gpu")) { if (!CALL(nvmlDeviceGetTemperature, d, 0, n)) sprintf(out, "%u", n[0]); return ""; }
    if (!strcmp(field, "utilization.gpu")) { if (!CALL(nvmlDeviceGetUtilizationRates, d, n)) sprintf(out, "%u", n[0]); return " %"; }
    if (!strcmp(field, "memory.total")) bytes = &m.total;
    if (!strcmp(field, "memory.reserved")) bytes = &m.reserved;
    if (!strcmp(field, "memory.used")) bytes = &m.used;
    if (!strcmp(field, "memory.free")) bytes = &m.free;
    if (!bytes) return NULL;
    if ((r = CALL(nvmlDeviceGetMemoryInfo_v2, d, &m))) sprintf(out, "[%s]", text(r)); else sprintf(out, "%llu", *bytes >> 20);
    return " MiB";
}

static int query(const char *fields, const char *format, unsigned n) {
    char list[512], out[128], *save, *f; void *d; int r; const char *unit;
    for (int header = !strstr(format, "noheader"), i = -header; i < (int)n; i++) {
        if (i >= 0 && (r = CALL(nvmlDeviceGetHandleByIndex_v2, (unsigned)i, &d))) { printf("Unable to determine the device handle for GPU%d: %s\n", i, text(r)); return r & 255; }
        snprintf(list, sizeof list, "%s", fields);
        for (f = strtok_r(list, ", ", &save); f; f = strtok_r(NULL, ", ", &save)) {
            const char *comma = f == list ? "" : ", ";
            if (i < 0) { printf("%s%s", comma, f); continue; }
            if (!(unit = value(d, (unsigned)i, f, out))) { printf("Field \"%s\" is not a valid field to query.\n", f); return 2; }
            printf("%s%s%s", comma, out, strstr(format, "nounits") || out[0] == '[' ? "" : unit);
        }
        puts("");
    }
    return 0;
}

static int fake_alloc(const char *gpu, const char *mib, const char *seconds) {
    int r = ((int (*)(const char *, u64))dlsym(lib, "fakenvml_alloc"))(gpu, strtoull(mib, 0, 10) << 20);
    if (r) { fprintf(stderr, r == 20 ? "CUDA error: out of memory\n" : "fake-alloc: NVML %d\n", r); return r & 255; }
    printf("allocated %s MiB on %s as pid %d\n", mib, gpu, getpid()); fflush(stdout);
    if (seconds) sleep((unsigned)atoi(seconds)); else for (;;) pause();
    return 0;
}

int main(int argc, char **argv) {
    void *d, *instance; int r; unsigned n, most; char uuid[96], name[96]; u64 m[3]; const char *format = "";
    if (!(lib = dlopen("libnvidia-ml.so.1", RTLD_NOW))) { puts("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."); return 12; }
    if (argc > 3 && !strcmp(argv[1], "fake-alloc")) return fake_alloc(argv[2], argv[3], argc > 4 ? argv[4] : NULL);
    if ((r = CALL(nvmlInit_v2))) { printf("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. (%d)\n", r); return r & 255; }
    if ((r = CALL(nvmlDeviceGetCount_v2, &n))) { printf("NVIDIA-SMI has failed: %s\n", text(r)); return r & 255; }
    if (!n) { puts("No devices were found"); return 6; }
    for (int i = 1; i < argc; i++) if (!strncmp(argv[i], "--format=", 9)) format = argv[i] + 9;
    for (int i = 1; i < argc; i++) if (!strncmp(argv[i], "--query-gpu=", 12)) return query(argv[i] + 12, format, n);
    int list = argc > 1 && (!strcmp(argv[1], "-L") || !strcmp(argv[1], "--list-gpus"));
    for (unsigned i = 0; i < n; i++) {
        if ((r = CALL(nvmlDeviceGetHandleByIndex_v2, i, &d)) || (r = CALL(nvmlDeviceGetUUID, d, uuid, 96)) || (r = CALL(nvmlDeviceGetName, d, name, 96))
            || (!list && (r = CALL(nvmlDeviceGetMemoryInfo, d, m)))) { printf("Unable to determine the device handle for GPU%u: %s\n", i, text(r)); return r & 255; }
        if (!list) { printf("%u, %s, %s, %llu MiB total, %llu MiB used, %llu MiB free\n", i, uuid, name, m[0] >> 20, m[2] >> 20, m[1] >> 20); continue; }
        printf("GPU %u: %s (UUID: %s)\n", i, name, uuid);
        if (CALL(nvmlDeviceGetMaxMigDeviceCount, d, &most)) continue;
        for (unsigned k = 0; k < most; k++)
            if (!CALL(nvmlDeviceGetMigDeviceHandleByIndex, d, k, &instance) && !CALL(nvmlDeviceGetUUID, instance, uuid, 96) && !CALL(nvmlDeviceGetName, instance, name, 96))
                printf("  %-16s Device %2u: (UUID: %s)\n", strstr(name, "MIG ") ? strstr(name, "MIG ") : name, k, uuid);
    }
    return 0;
}
