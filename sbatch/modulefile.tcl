#%Module1.0
# A module file for rtdetr-slurm, for Environment Modules and Lmod alike. Copy it to
# <a folder of MODULEPATH>/rtdetr-slurm/<version> and set where the program is (docs/admin.md says
# how to install it there).

set version  0.1.0
set prefix   /shared/apps/rtdetr-slurm/$version

proc ModulesHelp {} {
    puts stderr "rtdetr-slurm: train RT-DETR detectors on this cluster with one command."
    puts stderr "  rtdetr-slurm --help"
    puts stderr "  rtdetr-slurm default-specs train > train.yaml"
}
module-whatis "train RT-DETR object detectors on this cluster ($version)"
conflict rtdetr-slurm

# Links to the programs alone: the environment's own bin/ would put its Python before the user's.
prepend-path PATH $prefix/programs

# Where nobody may write /etc/rtdetr-slurm/site.yaml on the login nodes, a profile can be named here.
# Users can name another one, so its limits bind nobody.
# setenv RTDETR_SLURM_SITE /shared/apps/rtdetr-slurm/site.yaml
